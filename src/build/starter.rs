//! What the firmware starts: the unified kernel image of a bootable image, and the partition it lies in.

use super::{BuildError, os_files::MergedFiles};
use crate::{
    boot::{
        cmdline::command_line,
        depmod::ModuleTables,
        esp::EspPlan,
        initramfs::Initramfs,
        modules::{BootModules, Kernel, OsFiles},
        uki::Uki,
    },
    layer::tree::TreePath,
    recipe::Recipe,
};
use gap_format::Digest;
use std::io::Cursor;

/// Where systemd's stub lies in its package.
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Where the layer named by `boot.init` holds the program.
const INIT: &str = "init";

/// All parts of the boot image but the digest of what it starts.
pub struct Starter {
    stub: Vec<u8>,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    release: String,
    os_release: String,
    name: String,
    serial: u64,
    extra: String,
    plan: EspPlan,
}

/// What goes into a boot image besides the files of the image that it starts.
pub struct Parts<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The layer that holds the EFI stub.
    pub stub: MergedFiles<'a>,
    /// The layer that holds `/init`.
    pub init: MergedFiles<'a>,
    /// The image to be started.
    pub os: MergedFiles<'a>,
    /// The bytes of the trust file.
    pub trust: &'a [u8],
    /// The release's date, seconds since 1970.
    pub source_date: i64,
}

impl Starter {
    /// Reads kernel, modules, stub and init and makes the initramfs.
    ///
    /// # Errors
    /// [`BuildError`] naming what is missing in which layer.
    pub fn new(parts: &Parts<'_>) -> Result<Self, BuildError> {
        let kernel = Kernel::find(&parts.os, None)?;
        let tables = ModuleTables::of(&parts.os, &kernel)?;
        let modules = BootModules::take(&parts.os, &kernel, &tables)?;
        let initramfs = Initramfs {
            init: &required(&parts.init, INIT, "boot.init")?,
            trust: parts.trust,
            build_time: parts.source_date.try_into().unwrap_or(0),
            modules: &modules,
        };
        let os_release = os_release(parts);
        let mut starter = Self {
            stub: required(&parts.stub, STUB, "boot.stub")?,
            kernel: kernel.read_image(&parts.os)?,
            initrd: initramfs.build()?,
            release: kernel.release,
            os_release,
            name: parts.recipe.appliance.name.clone(),
            serial: parts.recipe.appliance.serial,
            extra: parts.recipe.boot.as_ref().map(|boot| boot.cmdline.clone()).unwrap_or_default(),
            plan: EspPlan::new(0)?,
        };
        // Any digest is as long as any other, so this gives the true length.
        starter.plan = EspPlan::new(starter.uki(&Digest::of(b""))?.len() as u64)?;
        Ok(starter)
    }

    /// Length of the EFI system partition.
    pub fn esp_size(&self) -> u64 {
        self.plan.size()
    }

    /// The EFI system partition that starts the image with this mount manifest, and nothing else.
    ///
    /// # Errors
    /// [`BuildError`] if the parts do not fit together.
    pub fn esp(&self, mount_manifest: &Digest) -> Result<Vec<u8>, BuildError> {
        let uki = self.uki(mount_manifest)?;
        let len = usize::try_from(self.plan.size()).map_err(|_| BuildError::TooLarge("EFI system partition"))?;
        let mut partition = Cursor::new(vec![0; len]);
        let [a, b, c, d, ..] = *Digest::of(&uki).as_bytes();
        self.plan.write(&mut partition, &uki, u32::from_le_bytes([a, b, c, d]))?;
        Ok(partition.into_inner())
    }

    fn uki(&self, mount_manifest: &Digest) -> Result<Vec<u8>, BuildError> {
        let mut cmdline = command_line(&self.name, self.serial, mount_manifest);
        if !self.extra.is_empty() {
            cmdline.push(' ');
            cmdline.push_str(&self.extra);
        }
        let uki = Uki {
            stub: &self.stub,
            os_release: &self.os_release,
            cmdline: &cmdline,
            uname: &self.release,
            kernel: &self.kernel,
            initrd: &self.initrd,
        };
        Ok(uki.build()?)
    }
}

fn required(files: &MergedFiles<'_>, path: &str, role: &'static str) -> Result<Vec<u8>, BuildError> {
    let path = TreePath::new(path).map_err(|source| BuildError::Path { path: path.to_owned(), source })?;
    files.read(&path).map_err(|source| BuildError::BootPart { role, path, source })
}

/// What a boot menu shows: the appliance, not the distribution that it is made from.
fn os_release(parts: &Parts<'_>) -> String {
    let appliance = &parts.recipe.appliance;
    format!(
        "ID=gapimage\nIMAGE_ID={name}\nIMAGE_VERSION={version}\nPRETTY_NAME=\"{name} {version}\"\nVERSION_ID={version}\n",
        name = appliance.name,
        version = appliance.version,
    )
}
