use super::super::super::conv::{Filters, conv};
use super::super::super::gemm::tests::{numbers, two_images};
use super::*;

/// Windows, strides, holes, groups and channels that don't fill fours, against filters of
/// f32.
#[test]
fn convolutions_are_near_those_of_f32() {
    let cases = [
        // channels, made, groups, image, kernel, strides, dilations, begin, end
        (3, 8, 1, [9, 11], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
        (4, 8, 1, [9, 40], [3, 3], [2, 2], [1, 1], [1, 0], [0, 1]),
        (6, 4, 2, [8, 7], [3, 2], [1, 3], [2, 1], [2, 1], [1, 0]),
        (5, 7, 1, [6, 6], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]),
        (17, 70, 1, [16, 17], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]),
        (5, 7, 1, [6, 6], [1, 1], [2, 2], [1, 1], [0, 0], [0, 0]),
        (8, 3, 1, [1, 200], [1, 7], [1, 4], [1, 1], [0, 3], [0, 3]),
        (8, 20, 2, [1, 9], [1, 3], [1, 2], [1, 1], [0, 1], [0, 1]),
        (9, 40, 1, [3, 3], [3, 3], [1, 1], [1, 1], [0, 0], [0, 0]),
        (4, 5, 1, [30, 4], [5, 1], [1, 1], [2, 1], [4, 0], [4, 0]),
        (64, 64, 1, [40, 40], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
    ];
    for (channels, made, groups, image, kernel, strides, dilations, begin, end) in cases {
        let g = two_images(
            [channels, made, groups],
            [image, kernel],
            [strides, dilations],
            [begin, end],
        );
        let output = g.output;
        let shape = [made, channels / groups, kernel[0], kernel[1]];
        let depth: usize = shape.iter().skip(1).product();
        let mut x = numbers(2 * channels * image[0] * image[1], 7);
        // Not around zero, so that padding with anything else would show.
        x.iter_mut().for_each(|x| *x += 0.4);
        let (w, bias) = (numbers(made * depth, 8), numbers(made, 9));
        let run = |filters: &Filters, x: &[f32]| {
            let mut found = vec![f32::MAX; 2 * made * output[0] * output[1]];
            conv(&g, x, filters, Some(&bias), Activation::Relu, &mut found).unwrap();
            found
        };
        let int8 = Filters::Int8(Int8Filters::new(&w, &shape, groups).unwrap());
        let (found, expected) = (run(&int8, &x), run(&Filters::new(&w), &x));
        // Half a step of the image times weights, and half a step of weights times the image,
        // for each product.
        let most = depth as f32 * (0.5 / 255.0 * 0.5 + 0.25 / 127.0 * 0.9);
        let mut off = 0.0;
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= most,
                "{found}, not {expected}: {g:?}"
            );
            off += (found - expected).abs();
        }
        assert!(off / found.len() as f32 <= most / 3.0, "{g:?}");

        let (first, second) = x.split_at_mut(channels * image[0] * image[1]);
        first.fill(0.0);
        second.fill(f32::NAN);
        let found = run(&int8, &x);
        let (first, second) = found.split_at(found.len() / 2);
        let lines = first.chunks(output[0] * output[1]).zip(&bias);
        for (line, bias) in lines {
            assert!(line.iter().all(|x| *x == bias.max(0.0)));
        }
        assert!(second.iter().all(|x| x.is_nan()));
    }
}

#[test]
fn what_is_no_filter_is_refused() {
    let w = numbers(32, 1);
    assert!(Int8Filters::new(&w, &[4, 8], 1).is_some());
    assert!(Int8Filters::new(&w, &[4, 8], 3).is_none());
    assert!(Int8Filters::new(&w, &[4, 8], 0).is_none());
    assert!(Int8Filters::new(&w, &[4, 9], 1).is_none());
    assert!(Int8Filters::new(&w, &[0, 8], 1).is_none());
    assert!(Int8Filters::new(&[f32::NAN; 32], &[4, 8], 1).is_none());
}

#[test]
fn windows_of_nothing_but_padding_give_the_bias() {
    let g = Geometry {
        batch: 1,
        channels: 4,
        made: 8,
        groups: 1,
        image: [0, 3],
        kernel: [2, 1],
        strides: [1, 1],
        dilations: [1, 1],
        begin: [1, 0],
        output: [1, 3],
    };
    let (w, bias) = (numbers(64, 8), numbers(8, 9));
    let filters = Filters::Int8(Int8Filters::new(&w, &[8, 4, 2, 1], 1).unwrap());
    let mut found = vec![f32::NAN; 24];
    conv(&g, &[], &filters, Some(&bias), Activation::None, &mut found).unwrap();
    for (line, bias) in found.chunks(3).zip(&bias) {
        assert!(line.iter().all(|x| x == bias), "{line:?}, not {bias}");
    }
}
