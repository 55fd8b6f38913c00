use super::super::super::gemm::tests::numbers;
use super::*;

/// By the definition, on numbers that stay f32, and how far off the quantised one may be:
/// half a step of each side for each product.
fn naive(x: &[f32], w: &[f32], bias: &[f32], [m, k, n]: [usize; 3]) -> Vec<(f64, f64)> {
    let most = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.fold(0.0, |most, x| f64::from(x.abs()).max(most))
    };
    let each = (0..m).flat_map(|i| (0..n).map(move |j| (i, j)));
    let one = |(i, j): (usize, usize)| {
        let row = &x[i * k..(i + 1) * k];
        let column = || (0..k).map(|p| w[p * n + j]);
        let (x_most, w_most) = (most(&mut row.iter().copied()), most(&mut column()));
        let terms = row.iter().zip(column());
        let sum: f64 = terms.map(|(x, w)| f64::from(*x) * f64::from(w)).sum();
        let step = x_most * w_most * k as f64 * (1.0 / 254.0 + 1.0 / 250.0);
        (sum + f64::from(bias[j]), step * 1.01 + 1e-6)
    };
    each.map(one).collect()
}

#[test]
fn products_are_near_those_of_the_definition() {
    for (m, k, n) in [
        (1, 1, 1),
        (1, 300, 70),
        (5, 7, 33),
        (33, 130, 64),
        (150, 260, 100),
    ] {
        let (x, w, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
        let right = Matrix::new(&w, [k, n], [n, 1]).unwrap();
        let weights = Int8::new(&right).unwrap();
        let left = Matrix::new(&x, [m, k], [k, 1]).unwrap();
        let mut c = vec![f32::NAN; m * n];
        weights
            .product(&left, Some(&bias), Activation::None, &mut c)
            .unwrap();
        let mut off = 0.0;
        for (found, (expected, most)) in c.iter().zip(naive(&x, &w, &bias, [m, k, n])) {
            let one = (f64::from(*found) - expected).abs();
            assert!(one <= most, "{found}, expected {expected}");
            off += one / most;
        }
        assert!(off / c.len() as f64 <= 0.5, "{off}");
        let mut positive = vec![f32::NAN; m * n];
        weights
            .product(&left, Some(&bias), Activation::Relu, &mut positive)
            .unwrap();
        assert!(positive.iter().zip(&c).all(|(a, b)| *a == b.max(0.0)));
    }
}

#[test]
fn odd_rows_do_not_touch_others() {
    let (k, n) = (40, 48);
    let w = numbers(k * n, 2);
    let weights = Int8::new(&Matrix::new(&w, [k, n], [n, 1]).unwrap()).unwrap();
    let mut x = numbers(6 * k, 1);
    x[..k].fill(0.0);
    x[k + 3] = f32::NAN;
    x[2 * k + 3] = f32::INFINITY;
    x[3 * k..4 * k].iter_mut().for_each(|x| *x *= 3e38);
    x[4 * k..5 * k].iter_mut().for_each(|x| *x *= 1e-40);
    let bias = numbers(n, 3);
    let left = Matrix::new(&x, [6, k], [k, 1]).unwrap();
    let mut c = vec![0.0; 6 * n];
    weights
        .product(&left, Some(&bias), Activation::None, &mut c)
        .unwrap();
    assert_eq!(c[..n], bias[..]);
    assert!(c[n..3 * n].iter().all(|x| x.is_nan()));
    let expected = naive(&x, &w, &bias, [6, k, n]);
    for row in [3, 4, 5] {
        for at in row * n..(row + 1) * n {
            let (expected, most) = expected[at];
            // What is too large for f32 may be infinite, and only that.
            let fits = expected.abs() < f64::from(f32::MAX);
            assert!(!fits || (f64::from(c[at]) - expected).abs() <= most);
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_left_alone() {
    let mut w = numbers(64, 2);
    assert!(Int8::new(&Matrix::new(&w, [8, 8], [8, 1]).unwrap()).is_some());
    w[9] = f32::NAN;
    assert!(Int8::new(&Matrix::new(&w, [8, 8], [8, 1]).unwrap()).is_none());
    let deep = vec![1.0; MOST + 1];
    assert!(Int8::new(&Matrix::new(&deep, [MOST + 1, 1], [1, 1]).unwrap()).is_none());
}
