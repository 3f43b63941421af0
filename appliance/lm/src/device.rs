//! The device that models are computed on, and what it says of itself.

use candle_core::{Device, Result};

/// Memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// What nobody uses.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// The first GPU where the program was built for GPUs and there is one, else the processor.
///
/// # Errors
/// Where there is a GPU and it cannot be used.
pub fn first() -> Result<Device> {
    gpu::first()
}

/// Memory of the GPU; nothing for a processor.
///
/// # Errors
/// Where the driver does not answer.
pub fn memory(device: &Device) -> Result<Option<GpuMemory>> {
    gpu::memory(device)
}

/// The GPU's name, or `cpu`.
///
/// # Errors
/// Where the driver does not answer.
pub fn name(device: &Device) -> Result<String> {
    gpu::name(device)
}

/// Whether it multiplies matrices in bfloat16 itself.
///
/// # Errors
/// Where the driver does not answer.
pub fn computes_bfloat16(device: &Device) -> Result<bool> {
    gpu::computes_bfloat16(device)
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::GpuMemory;
    use candle_core::{
        Device, Error, Result,
        cuda::cudarc::driver::{CudaContext, DriverError, sys::CUresult},
    };
    use std::sync::Arc;

    /// The first generation (Ampere) that has bfloat16.
    const BFLOAT16: i32 = 8;

    pub fn first() -> Result<Device> {
        match CudaContext::device_count() {
            Ok(0) | Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(Device::Cpu),
            Ok(_) => Device::new_cuda(0),
            Err(error) => Err(Error::wrap(error)),
        }
    }

    pub fn memory(device: &Device) -> Result<Option<GpuMemory>> {
        let Some(context) = context(device) else { return Ok(None) };
        let (free, total) = context.mem_get_info().map_err(Error::wrap)?;
        Ok(Some(GpuMemory { free: free as u64, total: total as u64 }))
    }

    pub fn name(device: &Device) -> Result<String> {
        context(device).map_or_else(|| Ok("cpu".to_owned()), |context| context.name().map_err(Error::wrap))
    }

    pub fn computes_bfloat16(device: &Device) -> Result<bool> {
        let Some(context) = context(device) else { return Ok(false) };
        Ok(context.compute_capability().map_err(Error::wrap)?.0 >= BFLOAT16)
    }

    fn context(device: &Device) -> Option<Arc<CudaContext>> {
        match device {
            Device::Cuda(device) => Some(device.cuda_stream().context().clone()),
            _ => None,
        }
    }
}

#[cfg(not(feature = "cuda"))]
#[allow(clippy::unnecessary_wraps, reason = "as with the feature `cuda`, where the driver may not answer")]
mod gpu {
    use super::GpuMemory;
    use candle_core::{Device, Result};

    pub fn first() -> Result<Device> {
        Ok(Device::Cpu)
    }

    pub fn memory(_: &Device) -> Result<Option<GpuMemory>> {
        Ok(None)
    }

    pub fn name(_: &Device) -> Result<String> {
        Ok("cpu".to_owned())
    }

    pub fn computes_bfloat16(_: &Device) -> Result<bool> {
        Ok(false)
    }
}
