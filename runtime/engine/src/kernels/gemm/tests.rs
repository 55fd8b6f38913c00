use super::super::conv::{Filters, Geometry, conv};
use super::*;

pub(in super::super) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn near(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(found) - expected).abs();
        assert!(off < 1e-4, "element {at}: {found}, expected {expected}");
    }
}

#[test]
fn products_of_all_sizes_are_those_of_the_formula() {
    let sizes = [1, 2, 5, 12, 13, 31, 32, 33, 70];
    for (m, n, k) in sizes
        .iter()
        .flat_map(|&m| sizes.iter().map(move |&n| (m, n)))
        .flat_map(|(m, n)| [1, 3, 64, 2500].map(|k| (m, n, k)))
        .filter(|(m, n, k)| m * n * k < 200_000)
    {
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        let (rows, columns) = (numbers(m, 3), numbers(n, 4));
        let product = |i: usize, j: usize, b: &dyn Fn(usize, usize) -> f32| -> f64 {
            let terms = (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b(p, j)));
            terms.sum()
        };
        let left = Matrix::new(&a, [m, k], [k, 1]).unwrap();
        // As it lies, and transposed.
        for (strides, at) in [([n, 1], [n, 1]), ([1, k], [1, k])] {
            let right = Matrix::new(&b, [k, n], strides).unwrap();
            let element = |p: usize, j: usize| b[p * at[0] + j * at[1]];
            let packed = Packed::new(&right);
            for right in [Right::Matrix(right), Right::Packed(&packed)] {
                let mut c = vec![f32::NAN; m * n];
                gemm(
                    Left::Matrix(left),
                    right,
                    Bias::Columns(&columns),
                    Activation::None,
                    &mut c,
                )
                .unwrap();
                let expected: Vec<f64> = (0..m * n)
                    .map(|at| product(at / n, at % n, &element) + f64::from(columns[at % n]))
                    .collect();
                near(&c, &expected);
                gemm(
                    Left::Matrix(left),
                    right,
                    Bias::Rows(&rows),
                    Activation::Relu,
                    &mut c,
                )
                .unwrap();
                let expected: Vec<f64> = (0..m * n)
                    .map(|at| product(at / n, at % n, &element) + f64::from(rows[at / n]))
                    .map(|x| x.max(0.0))
                    .collect();
                near(&c, &expected);
            }
        }
    }
}

#[test]
fn every_kernel_computes_the_same_tile() {
    let kernels = [kernel(), super::super::tile::portable()];
    for kernel in kernels {
        let (k, width) = (37, kernel.width);
        let (a, b) = (numbers(MAX_ROWS * k, 5), numbers(width * k, 6));
        for &rows in kernel.rows {
            let mut c = vec![0.0; rows * width];
            let tile = Tile {
                rows,
                k,
                a: a.as_ptr(),
                b: b.as_ptr(),
                b_stride: width,
                c: c.as_mut_ptr(),
                c_stride: width,
                start: Start::Zero,
            };
            // SAFETY: all of these are as large as the tile.
            unsafe { (kernel.run)(&tile) };
            let expected: Vec<f64> = (0..rows * width)
                .map(|at| {
                    let (i, j) = (at / width, at % width);
                    let terms =
                        (0..k).map(|p| f64::from(a[p * rows + i]) * f64::from(b[p * width + j]));
                    terms.sum()
                })
                .collect();
            near(&c, &expected);
        }
    }
}

/// A convolution of two images; `end` is what is added behind their last rows and columns.
pub fn two_images(
    [channels, made, groups]: [usize; 3],
    [image, kernel]: [[usize; 2]; 2],
    [strides, dilations]: [[usize; 2]; 2],
    [begin, end]: [[usize; 2]; 2],
) -> Geometry {
    let output = [0, 1].map(|at| {
        let reach = (kernel[at] - 1) * dilations[at] + 1;
        (image[at] + begin[at] + end[at] - reach) / strides[at] + 1
    });
    Geometry {
        batch: 2,
        channels,
        made,
        groups,
        image,
        kernel,
        strides,
        dilations,
        begin,
        output,
    }
}

#[test]
fn convolutions_of_all_shapes_are_those_of_the_formula() {
    let cases = [
        // channels, made, groups, image, kernel, strides, dilations, begin, end
        (3, 8, 1, [9, 11], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
        (3, 8, 1, [9, 40], [3, 3], [2, 2], [1, 1], [1, 0], [0, 1]),
        (6, 4, 2, [8, 7], [3, 2], [1, 3], [2, 1], [2, 1], [1, 0]),
        (5, 7, 1, [6, 6], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]),
        (5, 7, 1, [6, 6], [1, 1], [2, 2], [1, 1], [0, 0], [0, 0]),
        (6, 6, 6, [10, 13], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
        (6, 6, 6, [10, 13], [5, 5], [2, 2], [1, 1], [2, 2], [2, 2]),
        (6, 6, 6, [10, 13], [3, 3], [3, 3], [2, 2], [2, 2], [2, 2]),
        (4, 4, 4, [2, 2], [5, 5], [1, 1], [1, 1], [4, 4], [4, 4]),
        (2, 3, 1, [1, 200], [1, 7], [1, 4], [1, 1], [0, 3], [0, 3]),
        (4, 20, 2, [1, 9], [1, 3], [1, 2], [1, 1], [0, 1], [0, 1]),
        (4, 9, 1, [3, 3], [3, 3], [1, 1], [1, 1], [0, 0], [0, 0]),
        (4, 5, 1, [30, 4], [5, 1], [1, 1], [2, 1], [4, 0], [4, 0]),
    ];
    for (channels, made, groups, image, kernel, strides, dilations, begin, end) in cases {
        let g = two_images(
            [channels, made, groups],
            [image, kernel],
            [strides, dilations],
            [begin, end],
        );
        let output = g.output;
        let per_group = channels / groups;
        let x = numbers(2 * channels * image[0] * image[1], 7);
        let w = numbers(made * per_group * kernel[0] * kernel[1], 8);
        let bias = numbers(made, 9);
        let mut found = vec![f32::NAN; 2 * made * output[0] * output[1]];
        let filters = Filters::new(&w);
        conv(&g, &x, &filters, Some(&bias), Activation::None, &mut found).unwrap();
        let mut expected = Vec::new();
        for (n, m) in (0..2).flat_map(|n| (0..made).map(move |m| (n, m))) {
            for (y, x_at) in (0..output[0]).flat_map(|y| (0..output[1]).map(move |x| (y, x))) {
                let mut sum = f64::from(bias[m]);
                for c in 0..per_group {
                    for (i, j) in (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| (i, j))) {
                        let row = (y * strides[0] + i * dilations[0]).wrapping_sub(begin[0]);
                        let column = (x_at * strides[1] + j * dilations[1]).wrapping_sub(begin[1]);
                        if row >= image[0] || column >= image[1] {
                            continue;
                        }
                        let channel = n * channels + m / (made / groups) * per_group + c;
                        let from = (channel * image[0] + row) * image[1] + column;
                        let weight = ((m * per_group + c) * kernel[0] + i) * kernel[1] + j;
                        sum += f64::from(x[from]) * f64::from(w[weight]);
                    }
                }
                expected.push(sum);
            }
        }
        near(&found, &expected);
    }
}
