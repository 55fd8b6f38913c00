//! Products with weights of 8 bits on numbers that come as f32: weights are quantised when they
//! are laid out, one scale for each output channel, and what is multiplied by them when it
//! comes. Sums have 32 bits, and the result is f32 again.
//!
//! A row, or an image, that holds a number which isn't finite gives NaN everywhere: there is no
//! scale for it.

mod codes;
mod conv;
mod linear;

pub(super) use conv::conv;
pub(crate) use conv::{Int8Filters, pays as filters_pay};
pub(crate) use linear::{Int8, pays};

/// Numbers in a sum: with more, sums of products of 255 and 127 could leave 32 bits.
const MOST: usize = 1 << 16;

/// Multiplications for which it pays to ask another thread.
const WORTH_A_THREAD: usize = 1 << 20;

/// How many threads a product of so many multiplications is worth.
fn threads(work: usize) -> usize {
    if work < 2 * WORTH_A_THREAD {
        return 1;
    }
    rayon::current_num_threads().min(work / WORTH_A_THREAD)
}
