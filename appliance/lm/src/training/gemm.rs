//! Products of matrices that lie anywhere in memory: the one place that hands pointers to the `gemm` crate.

use std::ops::Range;

/// A matrix in a slice, by strides.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    shape: Shape,
}

/// The same to write to.
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    shape: Shape,
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl Shape {
    /// Whether every element lies within `length`.
    fn within(self, length: usize) -> bool {
        if self.rows == 0 || self.columns == 0 {
            return true;
        }
        let last = (self.rows - 1)
            .checked_mul(self.row_stride)
            .zip((self.columns - 1).checked_mul(self.column_stride))
            .and_then(|(row, column)| row.checked_add(column));
        last.is_some_and(|last| last < length)
    }
}

impl<'a> View<'a> {
    /// A matrix of `rows` by `columns`; nothing if it does not lie within the slice.
    #[must_use]
    pub fn new(data: &'a [f32], [rows, columns]: [usize; 2], [row_stride, column_stride]: [usize; 2]) -> Option<Self> {
        let shape = Shape { rows, columns, row_stride, column_stride };
        shape.within(data.len()).then_some(Self { data, shape })
    }

    /// Rows of `columns` values, one after the other.
    #[must_use]
    pub fn rows(data: &'a [f32], columns: usize) -> Option<Self> {
        Self::new(data, [data.len().checked_div(columns)?, columns], [columns, 1])
    }

    /// Some of its rows.
    #[must_use]
    pub fn slice(self, rows: Range<usize>) -> Option<Self> {
        if rows.start > rows.end || rows.end > self.shape.rows {
            return None;
        }
        let data = self.data.get(rows.start * self.shape.row_stride..)?;
        Some(Self { data, shape: Shape { rows: rows.len(), ..self.shape } })
    }

    /// Rows as columns.
    #[must_use]
    pub const fn transposed(self) -> Self {
        let Shape { rows, columns, row_stride, column_stride } = self.shape;
        let shape = Shape { rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride };
        Self { data: self.data, shape }
    }
}

impl<'a> ViewMut<'a> {
    /// A matrix of `rows` by `columns`; nothing if it does not lie within the slice, or if elements may share a place.
    #[must_use]
    pub fn new(
        data: &'a mut [f32],
        [rows, columns]: [usize; 2],
        [row_stride, column_stride]: [usize; 2],
    ) -> Option<Self> {
        let shape = Shape { rows, columns, row_stride, column_stride };
        let apart = column_stride == 1 && (row_stride >= columns || rows < 2);
        (apart && shape.within(data.len())).then_some(Self { data, shape })
    }

    /// Rows of `columns` values, one after the other.
    #[must_use]
    pub fn rows(data: &'a mut [f32], columns: usize) -> Option<Self> {
        let rows = data.len().checked_div(columns)?;
        Self::new(data, [rows, columns], [columns, 1])
    }
}

/// How many threads take part in a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The caller's alone.
    One,
    /// All of the pool's.
    All,
}

/// `out = keep · out + alpha · (left · right)`; nothing where the shapes do not fit. The order of additions follows from
/// the shapes and the number of threads alone.
#[must_use]
pub fn multiply(
    out: ViewMut<'_>,
    keep: bool,
    left: View<'_>,
    right: View<'_>,
    alpha: f32,
    threads: Threads,
) -> Option<()> {
    let (m, n, k) = (out.shape.rows, out.shape.columns, left.shape.columns);
    if left.shape.rows != m || right.shape.columns != n || right.shape.rows != k {
        return None;
    }
    let stride = |stride: usize| isize::try_from(stride).ok();
    let (out_row, out_column) = (stride(out.shape.row_stride)?, stride(out.shape.column_stride)?);
    let (left_row, left_column) = (stride(left.shape.row_stride)?, stride(left.shape.column_stride)?);
    let (right_row, right_column) = (stride(right.shape.row_stride)?, stride(right.shape.column_stride)?);
    let parallelism = match (threads, rayon::current_num_threads()) {
        (Threads::All, count) if count > 1 => gemm::Parallelism::Rayon(count),
        _ => gemm::Parallelism::None,
    };
    #[allow(
        unsafe_code,
        reason = "gemm's interface is pointers; the views hold only shapes that lie within their slices"
    )]
    // SAFETY: every element of the three matrices lies within its slice (`Shape::within`), those of `out` apart from
    // each other (`ViewMut::new`), and `out` is borrowed mutably, so it is apart from the others.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            out_column,
            out_row,
            keep,
            left.data.as_ptr(),
            left_column,
            left_row,
            right.data.as_ptr(),
            right_column,
            right_row,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_of_any_layout_are_right(m in 1usize..9, n in 1usize..9, k in 1usize..9, turn: [bool; 2], keep: bool) {
            let value = |index: usize| (index * 7 % 11) as f32 - 5.0;
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let b: Vec<f32> = (0..k * n).map(value).collect();
            let mut out = vec![1.0; m * n];
            let left = if turn[0] { View::rows(&a, m).unwrap().transposed() } else { View::rows(&a, k).unwrap() };
            let right = if turn[1] { View::rows(&b, k).unwrap().transposed() } else { View::rows(&b, n).unwrap() };
            multiply(ViewMut::rows(&mut out, n).unwrap(), keep, left, right, 2.0, Threads::All).unwrap();
            for i in 0..m {
                for j in 0..n {
                    let at = |x: usize| if turn[0] { a[x * m + i] } else { a[i * k + x] };
                    let bt = |x: usize| if turn[1] { b[j * k + x] } else { b[x * n + j] };
                    let exact = (0..k).map(|x| at(x) * bt(x)).sum::<f32>() * 2.0 + if keep { 1.0 } else { 0.0 };
                    prop_assert!((out[i * n + j] - exact).abs() < 1e-3);
                }
            }
        }
    }

    #[test]
    fn matrices_outside_their_slices_do_not_exist() {
        assert!(View::new(&[0.0; 5], [2, 3], [3, 1]).is_none());
        assert!(View::new(&[0.0; 6], [2, 3], [usize::MAX, 1]).is_none());
        assert!(ViewMut::new(&mut [0.0; 6], [2, 3], [1, 1]).is_none());
        let (a, b) = ([0.0; 6], [0.0; 6]);
        let mut out = [0.0; 4];
        let product = multiply(
            ViewMut::rows(&mut out, 2).unwrap(),
            false,
            View::rows(&a, 3).unwrap(),
            View::rows(&b, 3).unwrap(),
            1.0,
            Threads::One,
        );
        assert!(product.is_none());
    }
}
