//! The unified kernel image: systemd's EFI stub with command line, kernel and initrd added as
//! sections (UAPI group specification "Unified Kernel Image"; Microsoft "PE Format").
//!
//! The layout is that of `ukify`, down to the byte, except that the checksum field is filled in.

use object::{
    LittleEndian as LE,
    pe::{
        self, IMAGE_DIRECTORY_ENTRY_SECURITY, IMAGE_DLLCHARACTERISTICS_NX_COMPAT, IMAGE_FILE_MACHINE_AMD64,
        IMAGE_NT_OPTIONAL_HDR64_MAGIC, IMAGE_SCN_CNT_CODE, IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ,
        ImageNtHeaders64, ImageSectionHeader,
    },
    pod,
    read::pe::PeFile64,
    read::{Object, ObjectSection},
};
use std::mem::size_of;

/// First line of every revocation table (SBAT.md of shim).
const SBAT_HEADER: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n";
/// What the specification asks of every unified kernel image to carry.
const SBAT_UKI: &str = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n";
/// Longest command line that the kernel takes on x86, without the final NUL.
pub const MAX_CMDLINE: usize = 2047;

/// The parts of an image.
#[derive(Debug, Clone, Copy)]
pub struct Uki<'a> {
    /// systemd's `linuxx64.efi.stub`.
    pub stub: &'a [u8],
    /// The text of `os-release`.
    pub os_release: &'a str,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// The kernel's release, as `uname -r` prints it.
    pub uname: &'a str,
    /// The kernel (`vmlinuz`).
    pub kernel: &'a [u8],
    /// The initial RAM file system.
    pub initrd: &'a [u8],
}

/// Why an image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// The stub is no PE32+ program for x86-64.
    #[error("the EFI stub is not a 64-bit PE program for x86-64: {0}; take linuxx64.efi.stub of systemd-boot-efi")]
    Stub(String),
    /// It is one, but not systemd's.
    #[error("the EFI stub has no `{0}` section; take linuxx64.efi.stub of systemd-boot-efi")]
    NotSystemds(&'static str),
    /// The stub carries a signature, which adding sections would break.
    #[error("the EFI stub is signed; take the unsigned one")]
    Signed,
    /// There is no room for more section headers.
    #[error("the EFI stub has no room for the header of another section (`{0}`)")]
    NoHeaderRoom(&'static str),
    /// The revocation table does not fit where the stub has its own.
    #[error("the revocation table has {len} bytes, but the EFI stub has room for {room}")]
    NoSbatRoom {
        /// Length of the merged table.
        len: usize,
        /// What fits.
        room: usize,
    },
    /// The kernel is no EFI program.
    #[error("the kernel is not an EFI program: {0}; it needs CONFIG_EFI_STUB")]
    Kernel(String),
    /// The command line is too long or holds characters that firmware or kernel would misread.
    #[error("the kernel command line must be printable ASCII of at most {MAX_CMDLINE} bytes; it has {0}")]
    CommandLine(usize),
    /// The image would grow beyond 4 GiB.
    #[error("section `{0}` makes the boot image larger than the 4 GiB that its format can hold")]
    TooLarge(&'static str),
}

/// Offsets of the headers and the alignments of the stub.
struct Layout {
    nt: usize,
    sections: usize,
    headers_end: usize,
    file_alignment: u32,
    section_alignment: u32,
}

impl Uki<'_> {
    /// The image. The same parts give the same bytes.
    ///
    /// # Errors
    /// [`UkiError`] when a part is not what it should be, or they do not fit together.
    pub fn build(&self) -> Result<Vec<u8>, UkiError> {
        if self.cmdline.len() > MAX_CMDLINE || !self.cmdline.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(UkiError::CommandLine(self.cmdline.len()));
        }
        let kernel = PeFile64::parse(self.kernel).map_err(|error| UkiError::Kernel(error.to_string()))?;
        let layout = Layout::of_stub(self.stub)?;
        let mut image = Image { data: self.stub.to_vec(), layout };
        image.data.reserve(self.kernel.len() + self.initrd.len() + (64 << 10));
        image.pad_headers()?;
        if !kernel.nt_headers().optional_header.dll_characteristics.get(LE).contains(IMAGE_DLLCHARACTERISTICS_NX_COMPAT)
        {
            image.clear_nx_compat()?;
        }
        image.add(".osrel", self.os_release.as_bytes(), IMAGE_SCN_CNT_INITIALIZED_DATA)?;
        image.add(".cmdline", self.cmdline.as_bytes(), IMAGE_SCN_CNT_INITIALIZED_DATA)?;
        image.add(".uname", self.uname.as_bytes(), IMAGE_SCN_CNT_INITIALIZED_DATA)?;
        image.add(".linux", self.kernel, IMAGE_SCN_CNT_CODE)?;
        image.add(".initrd", self.initrd, IMAGE_SCN_CNT_INITIALIZED_DATA)?;
        image.replace_sbat(&self.sbat(&kernel)?)?;
        image.finish()
    }

    /// The revocation tables of stub and kernel and that of unified kernel images, as one.
    fn sbat(&self, kernel: &PeFile64<'_>) -> Result<Vec<u8>, UkiError> {
        let stub = PeFile64::parse(self.stub).map_err(|error| UkiError::Stub(error.to_string()))?;
        let mut table = SBAT_HEADER.to_owned();
        for program in [&stub, kernel] {
            let section = program.section_by_name(".sbat").and_then(|section| section.data().ok()).unwrap_or_default();
            let text = String::from_utf8_lossy(section);
            for line in text.trim_end_matches('\0').lines().skip(1) {
                table.push_str(line);
                table.push('\n');
            }
        }
        table.push_str(SBAT_UKI);
        table.push('\0');
        Ok(table.into_bytes())
    }
}

impl Layout {
    fn of_stub(stub: &[u8]) -> Result<Self, UkiError> {
        let bad = |error: object::Error| UkiError::Stub(error.to_string());
        let file = PeFile64::parse(stub).map_err(bad)?;
        let headers = file.nt_headers();
        let optional = &headers.optional_header;
        if headers.file_header.machine.get(LE) != IMAGE_FILE_MACHINE_AMD64
            || optional.magic.get(LE) != IMAGE_NT_OPTIONAL_HDR64_MAGIC
        {
            return Err(UkiError::Stub("it is for another machine".into()));
        }
        if file.data_directory(IMAGE_DIRECTORY_ENTRY_SECURITY).is_some_and(|entry| entry.virtual_address.get(LE) != 0) {
            return Err(UkiError::Signed);
        }
        for name in [".sdmagic", ".sbat"] {
            file.section_by_name(name).ok_or(UkiError::NotSystemds(name))?;
        }
        let nt = file.dos_header().e_lfanew.get(LE) as usize;
        let (file_alignment, section_alignment) = (optional.file_alignment.get(LE), optional.section_alignment.get(LE));
        if !file_alignment.is_power_of_two() || !section_alignment.is_power_of_two() {
            return Err(UkiError::Stub("its alignments are no powers of two".into()));
        }
        let header_len = size_of::<u32>() + size_of::<pe::ImageFileHeader>();
        Ok(Self {
            nt,
            sections: nt + header_len + usize::from(headers.file_header.size_of_optional_header.get(LE)),
            headers_end: optional.size_of_headers.get(LE).next_multiple_of(file_alignment) as usize,
            file_alignment,
            section_alignment,
        })
    }
}

/// An image that sections are being added to.
struct Image {
    data: Vec<u8>,
    layout: Layout,
}

impl Image {
    fn headers(&mut self) -> Result<&mut ImageNtHeaders64, UkiError> {
        let bytes = self.data.get_mut(self.layout.nt..).unwrap_or_default();
        let (headers, _) = pod::from_bytes_mut(bytes).map_err(|()| UkiError::Stub("its headers are cut off".into()))?;
        Ok(headers)
    }

    fn sections(&mut self) -> Result<&mut [ImageSectionHeader], UkiError> {
        let count = usize::from(self.headers()?.file_header.number_of_sections.get(LE));
        let bytes = self.data.get_mut(self.layout.sections..).unwrap_or_default();
        let (sections, _) = pod::slice_from_bytes_mut(bytes, count)
            .map_err(|()| UkiError::Stub("its section headers are cut off".into()))?;
        Ok(sections)
    }

    /// Claims the gap between the last section header and the first section's data, which starts on
    /// a multiple of the file alignment.
    fn pad_headers(&mut self) -> Result<(), UkiError> {
        let end = self.layout.headers_end;
        let first = self.sections()?.iter().map(|section| section.pointer_to_raw_data.get(LE)).min().unwrap_or(0);
        if (first as usize) < end {
            return Err(UkiError::Stub("its sections overlap its headers".into()));
        }
        self.headers()?.optional_header.size_of_headers.set(LE, end as u32);
        Ok(())
    }

    /// Firmware that enforces "no execute" must not do so for a kernel that cannot bear it.
    fn clear_nx_compat(&mut self) -> Result<(), UkiError> {
        let flags = &mut self.headers()?.optional_header.dll_characteristics;
        flags.set(LE, pe::DllFlags(flags.get(LE).0 & !IMAGE_DLLCHARACTERISTICS_NX_COMPAT.0));
        Ok(())
    }

    /// Appends a section behind the last one, in memory as in the file.
    fn add(&mut self, name: &'static str, content: &[u8], kind: pe::SectionFlags) -> Result<(), UkiError> {
        let (file_alignment, section_alignment) = (self.layout.file_alignment, self.layout.section_alignment);
        let too_large = || UkiError::TooLarge(name);
        let len = u32::try_from(content.len()).map_err(|_| too_large())?;
        let raw_len = len.checked_next_multiple_of(file_alignment).ok_or_else(too_large)?;
        let raw_start = u32::try_from(self.data.len())
            .ok()
            .and_then(|end| end.checked_next_multiple_of(file_alignment))
            .filter(|start| start.checked_add(raw_len).is_some())
            .ok_or_else(too_large)?;
        let address = self.end_of_memory()?.ok_or_else(too_large)?;
        address
            .checked_add(len)
            .and_then(|end| end.checked_next_multiple_of(section_alignment))
            .ok_or_else(too_large)?;

        let present = self.sections()?;
        let (count, at) = (present.len(), size_of_val(present) + self.layout.sections);
        let room = self.data.get_mut(at..self.layout.headers_end).unwrap_or_default();
        let (header, _) = pod::from_bytes_mut::<ImageSectionHeader>(room).map_err(|()| UkiError::NoHeaderRoom(name))?;
        pod::bytes_of_mut(header).fill(0);
        header.name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        header.virtual_size.set(LE, len);
        header.virtual_address.set(LE, address);
        header.size_of_raw_data.set(LE, raw_len);
        header.pointer_to_raw_data.set(LE, raw_start);
        header.characteristics.set(LE, IMAGE_SCN_MEM_READ | kind);

        self.data.resize(raw_start as usize, 0);
        self.data.extend_from_slice(content);
        self.data.resize((raw_start + raw_len) as usize, 0);
        let headers = self.headers()?;
        headers.file_header.number_of_sections.set(LE, count as u16 + 1);
        let initialized = &mut headers.optional_header.size_of_initialized_data;
        initialized.set(LE, initialized.get(LE).wrapping_add(len));
        Ok(())
    }

    /// The aligned end of the last section in memory; `None` beyond 4 GiB.
    fn end_of_memory(&mut self) -> Result<Option<u32>, UkiError> {
        let alignment = self.layout.section_alignment;
        Ok(self.sections()?.last().and_then(|last| {
            last.virtual_address.get(LE).checked_add(last.virtual_size.get(LE))?.checked_next_multiple_of(alignment)
        }))
    }

    /// Puts the merged revocation table where the stub has its own: firmware looks at the first one.
    fn replace_sbat(&mut self, table: &[u8]) -> Result<(), UkiError> {
        let section = self.sections()?.iter_mut().find(|section| section.name.starts_with(b".sbat\0"));
        let section = section.ok_or(UkiError::NotSystemds(".sbat"))?;
        let room = section.size_of_raw_data.get(LE) as usize;
        let start = section.pointer_to_raw_data.get(LE) as usize;
        if table.len() > room {
            return Err(UkiError::NoSbatRoom { len: table.len(), room });
        }
        section.virtual_size.set(LE, table.len() as u32);
        let bytes = self.data.get_mut(start..start.saturating_add(room));
        let bytes = bytes.ok_or_else(|| UkiError::Stub("its `.sbat` section is cut off".into()))?;
        bytes.fill(0);
        bytes.iter_mut().zip(table).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Sets the length in memory and the checksum.
    fn finish(mut self) -> Result<Vec<u8>, UkiError> {
        let end = self.end_of_memory()?.ok_or(UkiError::TooLarge(".initrd"))?;
        self.headers()?.optional_header.size_of_image.set(LE, end);
        self.headers()?.optional_header.check_sum.set(LE, 0);
        let sum = checksum(&self.data);
        self.headers()?.optional_header.check_sum.set(LE, sum);
        Ok(self.data)
    }
}

/// The PE checksum of an image whose checksum field is zero: the sum of its 16-bit words with
/// carries folded in, plus its length.
fn checksum(image: &[u8]) -> u32 {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let mut sum: u64 = image.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u32).wrapping_add(image.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::write::pe::{NtHeaders, Writer};

    /// A PE program with these sections; its headers have room for 15 in all.
    fn program(sections: &[(&str, &[u8])], flags: pe::DllFlags) -> Vec<u8> {
        let mut data = Vec::new();
        let mut writer = Writer::new(true, 4096, 1024, &mut data);
        writer.reserve_dos_header_and_stub();
        writer.reserve_nt_headers(16);
        writer.reserve_section_headers(sections.len() as u16);
        let ranges: Vec<_> = sections
            .iter()
            .map(|(name, content)| {
                let mut padded = [0; 8];
                padded[..name.len()].copy_from_slice(name.as_bytes());
                let len = content.len() as u32;
                (writer.reserve_section(padded, IMAGE_SCN_MEM_READ, len, len), content)
            })
            .collect();
        writer.write_dos_header_and_stub().unwrap();
        writer.write_nt_headers(NtHeaders {
            machine: IMAGE_FILE_MACHINE_AMD64,
            time_date_stamp: 0,
            characteristics: pe::IMAGE_FILE_EXECUTABLE_IMAGE,
            major_linker_version: 0,
            minor_linker_version: 0,
            address_of_entry_point: 0x1000,
            image_base: 0x1_4000_0000,
            major_operating_system_version: 0,
            minor_operating_system_version: 0,
            major_image_version: 0,
            minor_image_version: 0,
            major_subsystem_version: 0,
            minor_subsystem_version: 0,
            subsystem: pe::IMAGE_SUBSYSTEM_EFI_APPLICATION,
            dll_characteristics: flags,
            size_of_stack_reserve: 0,
            size_of_stack_commit: 0,
            size_of_heap_reserve: 0,
            size_of_heap_commit: 0,
        });
        writer.write_section_headers();
        for (range, content) in ranges {
            writer.write_section(range.file_offset, content);
        }
        data
    }

    fn stub() -> Vec<u8> {
        let sbat = format!("{SBAT_HEADER}stub,1,Stub\n");
        let sections: [(&str, &[u8]); 3] =
            [(".text", &[0x90; 700]), (".sbat", sbat.as_bytes()), (".sdmagic", b"#### LoaderInfo")];
        program(&sections, IMAGE_DLLCHARACTERISTICS_NX_COMPAT)
    }

    fn kernel() -> Vec<u8> {
        program(&[(".text", &[1; 1000])], pe::DllFlags(0))
    }

    fn build(stub: &[u8], kernel: &[u8], cmdline: &str) -> Result<Vec<u8>, UkiError> {
        let initrd = [7; 5000];
        Uki { stub, os_release: "ID=x\n", cmdline, uname: "6.12", kernel, initrd: &initrd }.build()
    }

    fn section(image: &[u8], name: &str) -> Vec<u8> {
        PeFile64::parse(image).unwrap().section_by_name(name).unwrap().data().unwrap().to_vec()
    }

    #[test]
    fn every_part_can_be_read_back() {
        let image = build(&stub(), &kernel(), "gap.serial=7 quiet").unwrap();
        assert_eq!(section(&image, ".osrel"), b"ID=x\n");
        assert_eq!(section(&image, ".cmdline"), b"gap.serial=7 quiet");
        assert_eq!(section(&image, ".uname"), b"6.12");
        assert_eq!(section(&image, ".linux"), kernel());
        assert_eq!(section(&image, ".initrd"), [7; 5000]);
        let sbat = String::from_utf8(section(&image, ".sbat")).unwrap();
        assert_eq!(sbat, format!("{SBAT_HEADER}stub,1,Stub\n{SBAT_UKI}\0"));
    }

    #[test]
    fn sections_follow_each_other_in_memory_and_in_the_file() {
        let image = build(&stub(), &kernel(), "quiet").unwrap();
        let file = PeFile64::parse(image.as_slice()).unwrap();
        let (mut memory, mut raw) = (0, 0);
        for header in file.section_table().iter() {
            assert!(header.virtual_address.get(LE) >= memory && header.pointer_to_raw_data.get(LE) >= raw);
            assert!(header.virtual_address.get(LE).is_multiple_of(4096));
            memory = header.virtual_address.get(LE) + header.virtual_size.get(LE);
            raw = header.pointer_to_raw_data.get(LE) + header.size_of_raw_data.get(LE);
        }
        let optional = &file.nt_headers().optional_header;
        assert_eq!(optional.size_of_image.get(LE), memory.next_multiple_of(4096));
        assert_eq!(raw as usize, image.len());
        assert!(!optional.dll_characteristics.get(LE).contains(IMAGE_DLLCHARACTERISTICS_NX_COMPAT));
    }

    #[test]
    fn a_stub_that_is_not_systemds_is_refused() {
        let other = program(&[(".text", &[0; 10])], pe::DllFlags(0));
        assert!(matches!(build(&other, &kernel(), ""), Err(UkiError::NotSystemds(_))));
        assert!(matches!(build(b"\x7fELF", &kernel(), ""), Err(UkiError::Stub(_))));
        assert!(matches!(build(&stub()[..300], &kernel(), ""), Err(UkiError::Stub(_))));
    }

    #[test]
    fn a_kernel_without_efi_stub_is_refused() {
        assert!(matches!(build(&stub(), b"\x1f\x8b", ""), Err(UkiError::Kernel(_))));
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        assert!(build(&stub(), &kernel(), &"x".repeat(2047)).is_ok());
        for bad in ["x".repeat(2048), "a\nb".into(), "ü".into(), "a\0".into()] {
            assert!(matches!(build(&stub(), &kernel(), &bad), Err(UkiError::CommandLine(_))));
        }
    }

    #[test]
    fn too_many_sections_for_the_headers_are_refused() {
        let sbat = SBAT_HEADER.as_bytes();
        let mut sections: Vec<(&str, &[u8])> = vec![(".sbat", sbat), (".sdmagic", b"x")];
        sections.extend([(".fill", &b"x"[..]); 10]);
        assert!(matches!(build(&program(&sections, pe::DllFlags(0)), &kernel(), ""), Err(UkiError::NoHeaderRoom(_))));
    }

    #[test]
    fn the_checksum_is_that_of_the_specification() {
        // 0x0201 + 0x0403 + 0x05 = 0x0609, plus the length of 5.
        assert_eq!(checksum(&[1, 2, 3, 4, 5]), 0x0609 + 5);
        // 0xffff + 0x0002 carries: 0x0002, plus the length of 4.
        assert_eq!(checksum(&[0xff, 0xff, 2, 0]), 2 + 4);
    }
}
