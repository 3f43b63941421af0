//! Weights that may be trained, and their gradients.

use super::{
    cpu,
    gemm::{Threads, View, ViewMut, multiply},
};
use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Result, Tensor, bail};

/// A weight by its name.
#[derive(Debug, Clone)]
pub struct Parameter {
    name: String,
    value: Tensor,
    trainable: bool,
    gradient: Option<Tensor>,
}

impl Parameter {
    /// One that stays as it is.
    pub fn frozen(name: impl Into<String>, value: Tensor) -> Self {
        Self { name: name.into(), value, trainable: false, gradient: None }
    }

    /// One that is trained; its value is kept in 32 bits.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn trainable(name: impl Into<String>, value: &Tensor) -> Result<Self> {
        Ok(Self { name: name.into(), value: value.to_dtype(DType::F32)?, trainable: true, gradient: None })
    }

    /// Its name in the file that it comes from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value.
    #[must_use]
    pub const fn value(&self) -> &Tensor {
        &self.value
    }

    /// Its value in the type that `like` has.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn like(&self, like: &Tensor) -> Result<Tensor> {
        self.value.to_dtype(like.dtype())
    }

    /// Whether it is trained.
    #[must_use]
    pub const fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// Puts another value in its place.
    ///
    /// # Errors
    /// Where its shape is another.
    pub fn set(&mut self, value: Tensor) -> Result<()> {
        if value.dims() != self.value.dims() {
            bail!("`{}` is {:?}, not {:?}", self.name, self.value.dims(), value.dims());
        }
        self.value = value.to_dtype(self.value.dtype())?;
        Ok(())
    }

    /// What was accumulated since it was last taken.
    #[must_use]
    pub const fn gradient(&self) -> Option<&Tensor> {
        self.gradient.as_ref()
    }

    /// Forgets the gradient.
    pub fn clear(&mut self) {
        self.gradient = None;
    }

    /// Adds to the gradient.
    ///
    /// # Errors
    /// Where shapes do not fit or the device has no room.
    pub fn accumulate(&mut self, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.to_dtype(DType::F32)?;
        self.gradient = Some(match self.gradient.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
        Ok(())
    }

    /// Adds `alpha · leftᵀ · right` to the gradient.
    ///
    /// # Errors
    /// As [`Parameter::accumulate`].
    pub fn accumulate_product(&mut self, left: &Tensor, right: &Tensor, alpha: f64) -> Result<()> {
        let sum = match self.gradient.take() {
            Some(sum) => sum,
            None => Tensor::zeros(self.value.shape(), DType::F32, self.value.device())?,
        };
        self.gradient = Some(add_product(sum, &left.t()?, right, alpha)?);
        Ok(())
    }
}

/// `sum + alpha · left · right`.
///
/// # Errors
/// Where shapes do not fit or the device has no room.
pub fn add_product(sum: Tensor, left: &Tensor, right: &Tensor, alpha: f64) -> Result<Tensor> {
    if cpu::is_direct(&sum) && cpu::is_direct(left) && cpu::is_direct(right) {
        sum.inplace_op3(left, right, &AddProduct { alpha: alpha as f32 })?;
        return Ok(sum);
    }
    let product = (left.matmul(right)? * alpha)?;
    let product = product.to_dtype(sum.dtype())?;
    sum + product
}

struct AddProduct {
    alpha: f32,
}

/// A matrix of two dimensions as it lies.
fn view<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Option<View<'a>>> {
    let (rows, columns) = layout.shape().dims2()?;
    let (&[row, column], Some(data)) = (layout.stride(), storage.as_slice::<f32>()?.get(layout.start_offset()..))
    else {
        return Ok(None);
    };
    Ok(View::new(data, [rows, columns], [row, column]))
}

impl InplaceOp3 for AddProduct {
    fn name(&self) -> &'static str {
        "add-product"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        let (rows, columns) = l1.shape().dims2()?;
        let CpuStorage::F32(sum) = s1 else { bail!("sums are of 32 bits") };
        let Some((start, end)) = l1.contiguous_offsets() else { bail!("a sum is not contiguous") };
        let sum = sum.get_mut(start..end).and_then(|sum| ViewMut::new(sum, [rows, columns], [columns, 1]));
        let done = sum.zip(view(s2, l2)?).zip(view(s3, l3)?);
        let done = done.and_then(|((sum, left), right)| multiply(sum, true, left, right, self.alpha, Threads::All));
        match done {
            Some(()) => Ok(()),
            None => bail!("{:?} by {:?} is not {:?}", l2.dims(), l3.dims(), l1.dims()),
        }
    }
}
