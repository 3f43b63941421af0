//! The two calls of the library that its wrapper lacks: which instance a slice is.
#![allow(unsafe_code)]

use nvml_wrapper::{Device, Nvml};
use std::os::raw::c_uint;

/// GPU instance and compute instance of a slice, as in the names of its capabilities; `None` where the library does not
/// say.
pub(super) fn of(library: &Nvml, slice: &Device<'_>) -> Option<(u32, u32)> {
    let (mut gpu, mut compute): (c_uint, c_uint) = (0, 0);
    let gpu_instance = library.lib().nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
    let compute_instance = library.lib().nvmlDeviceGetComputeInstanceId.as_ref().ok()?;
    // SAFETY: the handle is that of a device of this library, which outlives it, and both functions write one number.
    let answers = unsafe { [gpu_instance(slice.handle(), &mut gpu), compute_instance(slice.handle(), &mut compute)] };
    // NVML_SUCCESS
    (answers == [0, 0]).then_some((gpu, compute))
}
