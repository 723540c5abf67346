//! The two meta pages: reading, judging and choosing between them.

use std::fmt;
use std::io;

use super::layout::{
    self, MAGIC, META, META_PAGE, MIN_PAGE_SIZE, NO_FREELIST, PAGE_SIZES, PageHeader, VERSION,
    array, fnv1a, is_page_size, u32_at, u64_at,
};
use super::source::ReadAt;
use crate::finding::{Findings, Layer, Place};

/// A meta page's content; see [`layout`] for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Bytes in a page: a power of two from 1 KiB to 16 MiB.
    pub page_size: u32,
    /// Always 0.
    pub flags: u32,
    /// Page of the root bucket, which holds the top-level buckets.
    pub root: u64,
    /// The root bucket's sequence.
    pub sequence: u64,
    /// Page of the freelist, or [`NO_FREELIST`].
    pub freelist: u64,
    /// First page number never allocated: the database is `high_water · page_size` bytes long.
    pub high_water: u64,
    /// Transaction that wrote it.
    pub txid: u64,
}

/// Why bytes are not a meta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaFault {
    /// Fewer than 80 bytes.
    Short,
    /// The magic, byte-swapped: written by a big-endian machine.
    BigEndian,
    /// Another magic.
    Magic(u32),
    /// Another version.
    Version(u32),
    /// The checksum that was computed, and the one that stands there.
    Checksum(u64, u64),
    /// A size no page can have.
    PageSize(u32),
}

impl MetaFault {
    /// What should be there.
    pub fn expected(&self) -> String {
        match self {
            Self::Short => format!("{META_PAGE} bytes"),
            Self::BigEndian | Self::Magic(_) => format!("magic {MAGIC:#010x}"),
            Self::Version(_) => format!("version {VERSION}"),
            Self::Checksum(computed, _) => format!("checksum {computed:#018x}"),
            Self::PageSize(_) => "a page size of 1 KiB to 16 MiB, a power of two".into(),
        }
    }
}

impl fmt::Display for MetaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the end of the file"),
            Self::BigEndian => f.write_str(
                "its bytes in big-endian order: a database from a big-endian machine, which is not supported",
            ),
            Self::Magic(found) => write!(f, "{found:#010x}"),
            Self::Version(found) => write!(f, "{found}"),
            Self::Checksum(_, found) => write!(f, "{found:#018x}"),
            Self::PageSize(found) => write!(f, "{found}"),
        }
    }
}

impl Meta {
    /// Reads the meta in a page given from its first byte.
    pub fn parse(page: &[u8]) -> Result<Self, MetaFault> {
        Self::fields(page).unwrap_or(Err(MetaFault::Short))
    }

    fn fields(page: &[u8]) -> Option<Result<Self, MetaFault>> {
        let hashed = page.get(16..72)?;
        let checksum = u64_at(page, 72)?;
        let magic = u32_at(page, 16)?;
        if magic == MAGIC.swap_bytes() {
            return Some(Err(MetaFault::BigEndian));
        }
        if magic != MAGIC {
            return Some(Err(MetaFault::Magic(magic)));
        }
        let version = u32_at(page, 20)?;
        if version != VERSION {
            return Some(Err(MetaFault::Version(version)));
        }
        let computed = fnv1a(hashed);
        if computed != checksum {
            return Some(Err(MetaFault::Checksum(computed, checksum)));
        }
        let page_size = u32_at(page, 24)?;
        if !is_page_size(page_size) {
            return Some(Err(MetaFault::PageSize(page_size)));
        }
        Some(Ok(Self {
            page_size,
            flags: u32_at(page, 28)?,
            root: u64_at(page, 32)?,
            sequence: u64_at(page, 40)?,
            freelist: u64_at(page, 48)?,
            high_water: u64_at(page, 56)?,
            txid: u64_at(page, 64)?,
        }))
    }

    /// The freelist's page, if one is stored.
    pub fn stored_freelist(&self) -> Option<u64> {
        (self.freelist != NO_FREELIST).then_some(self.freelist)
    }

    /// Length of the database in bytes, if the claim is not absurd.
    pub fn database_size(&self) -> Option<u64> {
        self.high_water.checked_mul(u64::from(self.page_size))
    }

    /// Whether page 0 and page 1 are as a server streams them.
    fn streamed_with(&self, other: &Self) -> bool {
        self.same_but_txid(other) && other.txid.checked_add(1) == Some(self.txid)
    }

    /// The same page with another transaction's number.
    fn same_but_txid(&self, other: &Self) -> bool {
        Self { txid: 0, ..*self } == Self { txid: 0, ..*other }
    }
}

/// How the file came to be, as far as it decides what its metas must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Streamed by a server: page 0 holds the newer meta, page 1 the same with the id before.
    Streamed,
    /// A database's own file, or a copy: the metas are of two transactions, one may be torn.
    File,
}

/// Both meta pages of a file, and the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metas {
    /// What pages 0 and 1 hold.
    pub pages: [Result<Meta, MetaFault>; 2],
    /// The valid one with the higher transaction id.
    pub chosen: Meta,
}

impl Metas {
    /// Reads both metas of a database's own file and chooses; what is wrong with the other one is
    /// left out.
    pub fn of_file(source: &dyn ReadAt, length: u64) -> io::Result<Option<Self>> {
        Self::read(source, length, Origin::File, &mut Findings::keeping(0))
    }

    /// Reads both metas and chooses. `data` is the file's length without a trailer. Nothing comes
    /// back when neither is valid; each thing that is wrong is a finding.
    pub fn read(
        source: &dyn ReadAt,
        data: u64,
        origin: Origin,
        findings: &mut Findings,
    ) -> io::Result<Option<Self>> {
        let first_page = read_page(source, data, 0)?;
        let first = Meta::parse(&first_page);
        let (second_page, second) = match first {
            Ok(meta) => {
                let page = read_page(source, data, u64::from(meta.page_size))?;
                let mut second = Meta::parse(&page);
                if let Ok(other) = second
                    // By the page size that it claims, it would be at another offset.
                    && other.page_size != meta.page_size
                {
                    second = Err(MetaFault::PageSize(other.page_size));
                }
                (page, second)
            }
            Err(_) => probe(source, data)?,
        };
        let pages = [first, second];
        let chosen = match pages {
            // As bbolt chooses (`DB.meta`, db.go): the newest transaction that was written whole.
            [Ok(a), Ok(b)] => Some(if b.txid > a.txid { b } else { a }),
            [Ok(meta), Err(_)] | [Err(_), Ok(meta)] => Some(meta),
            [Err(_), Err(_)] => None,
        };
        let Some(chosen) = chosen else {
            report_none(&pages, findings);
            return Ok(None);
        };
        report_faults(&pages, origin, findings);
        for (number, page) in [(0, &first_page), (1, &second_page)] {
            check_header(number, page, findings);
        }
        if let ([Ok(a), Ok(b)], Origin::Streamed) = (pages, origin)
            && !a.streamed_with(&b)
        {
            findings.warning(Layer::Meta, place(1, 0), || {
                (
                    "page 0 repeated with the transaction id before it, as a server streams it"
                        .into(),
                    describe_difference(&a, &b),
                )
            });
        }
        // Only the meta in force is judged: the other one may lead to pages that were reused.
        let number = if first == Ok(chosen) { 0 } else { 1 };
        check_fields(number, &chosen, data, findings);
        Ok(Some(Self { pages, chosen }))
    }

    /// Whether they are those of a database's own file: of two transactions, each of which wrote a
    /// root of its own. In a stream both are of one.
    pub fn of_own_file(&self) -> bool {
        matches!(self.pages, [Ok(a), Ok(b)] if !a.same_but_txid(&b))
    }
}

fn place(page: u64, offset: u64) -> Place {
    Place::Page { page, offset }
}

/// Up to 80 bytes at `offset`; fewer where the file ends.
fn read_page(source: &dyn ReadAt, data: u64, offset: u64) -> io::Result<Vec<u8>> {
    let len = data.saturating_sub(offset).min(META_PAGE as u64);
    let mut page = vec![0; len as usize];
    if !page.is_empty() {
        source.read_exact_at(&mut page, offset)?;
    }
    Ok(page)
}

/// Looks for page 1 at each place where it can be when page 0 does not tell the page size.
fn probe(source: &dyn ReadAt, data: u64) -> io::Result<(Vec<u8>, Result<Meta, MetaFault>)> {
    for shift in 0..PAGE_SIZES {
        let size = MIN_PAGE_SIZE << shift;
        let page = read_page(source, data, u64::from(size))?;
        match Meta::parse(&page) {
            // Anything may stand at a wrong offset, even the value of a key that is a copy of a
            // meta.
            Ok(meta) if meta.page_size == size => return Ok((page, Ok(meta))),
            _ => {}
        }
    }
    Ok((Vec::new(), Err(MetaFault::Short)))
}

fn report_none(pages: &[Result<Meta, MetaFault>; 2], findings: &mut Findings) {
    if let [Err(fault), _] = pages {
        findings.error(Layer::Meta, place(0, 0), || {
            (fault.expected(), fault.to_string())
        });
    }
    findings.error(Layer::Meta, None, || {
        (
            "a valid meta in page 0 or page 1".into(),
            "neither: not a bbolt database, or one with its beginning destroyed".into(),
        )
    });
}

fn report_faults(pages: &[Result<Meta, MetaFault>; 2], origin: Origin, findings: &mut Findings) {
    for (number, page) in (0..).zip(pages) {
        let Err(fault) = page else { continue };
        let words = || {
            let found = format!("{fault}; the other meta is used");
            (fault.expected(), found)
        };
        match origin {
            Origin::Streamed => findings.error(Layer::Meta, place(number, 0), words),
            // bbolt writes the metas in turn, so that a crash can leave one of them torn.
            Origin::File => findings.warning(Layer::Meta, place(number, 0), words),
        }
    }
}

fn check_header(number: u64, page: &[u8], findings: &mut Findings) {
    let Some(header) = PageHeader::parse(page) else {
        return;
    };
    let good = PageHeader {
        id: number,
        flags: META,
        count: 0,
        overflow: 0,
    };
    // A meta that cannot be read is a finding already.
    if header != good && Meta::parse(page).is_ok() {
        findings.error(Layer::Meta, place(number, 0), || {
            (
                format!("the header of meta page {number}: flags 0x4, no elements, no overflow"),
                format!(
                    "id {}, flags {:#x}, {} elements, overflow {}",
                    header.id, header.flags, header.count, header.overflow
                ),
            )
        });
    }
}

fn describe_difference(a: &Meta, b: &Meta) -> String {
    let mut parts = Vec::new();
    let fields = [
        ("root", a.root, b.root),
        ("freelist", a.freelist, b.freelist),
        ("high-water mark", a.high_water, b.high_water),
        ("transaction id", a.txid, b.txid),
    ];
    for (name, a, b) in fields {
        if a != b {
            parts.push(format!("{name} {a} and {b}"));
        }
    }
    parts.join(", ")
}

fn check_fields(page: u64, meta: &Meta, data: u64, findings: &mut Findings) {
    let mut error = |offset: u64, expected: String, found: String| {
        findings.error(Layer::Meta, place(page, offset), || (expected, found));
    };
    if meta.flags != 0 {
        error(28, "flags 0".into(), format!("{:#x}", meta.flags));
    }
    if meta.root < 2 || meta.root >= meta.high_water {
        error(
            32,
            format!("a root page of at least 2 and below {}", meta.high_water),
            meta.root.to_string(),
        );
    }
    if let Some(freelist) = meta.stored_freelist()
        && (freelist < 2 || freelist >= meta.high_water)
    {
        error(
            48,
            format!(
                "a freelist page of at least 2 and below {}",
                meta.high_water
            ),
            freelist.to_string(),
        );
    }
    match meta.database_size() {
        Some(size) if size <= data => {}
        size => error(
            56,
            format!(
                "{} bytes ({} pages of {})",
                size.map_or_else(|| "countless".into(), |s| s.to_string()),
                meta.high_water,
                meta.page_size
            ),
            format!("{data} bytes: the file is truncated"),
        ),
    }
}

/// The fixed bytes of a meta page, for those who write one.
pub fn encode_meta(number: u64, meta: &Meta) -> [u8; META_PAGE] {
    let mut page = [0; META_PAGE];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(target) = page.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    };
    put(0, &number.to_le_bytes());
    put(8, &META.to_le_bytes());
    put(16, &MAGIC.to_le_bytes());
    put(20, &VERSION.to_le_bytes());
    put(24, &meta.page_size.to_le_bytes());
    put(28, &meta.flags.to_le_bytes());
    put(32, &meta.root.to_le_bytes());
    put(40, &meta.sequence.to_le_bytes());
    put(48, &meta.freelist.to_le_bytes());
    put(56, &meta.high_water.to_le_bytes());
    put(64, &meta.txid.to_le_bytes());
    let checksum = array::<56>(&page, 16).map_or(0, |hashed| layout::fnv1a(&hashed));
    if let Some(target) = page.get_mut(72..) {
        target.copy_from_slice(&checksum.to_le_bytes());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Page 0 and page 1 of a snapshot streamed by etcd 3.5.30.
    const STREAMED: [&str; 2] = [
        "00000000000000000400000000000000edda0ced0200000000100000000000000400000000000000\
         0000000000000000ffffffffffffffff0e000000000000001000000000000000995518bcec300b80",
        "01000000000000000400000000000000edda0ced0200000000100000000000000400000000000000\
         0000000000000000ffffffffffffffff0e000000000000000f0000000000000026d555ec406b6e33",
    ];

    fn streamed() -> Vec<u8> {
        let mut file = vec![0; 14 * 4096];
        for (number, text) in STREAMED.iter().enumerate() {
            let bytes = hex::decode(text).unwrap();
            file[number * 4096..][..80].copy_from_slice(&bytes);
        }
        file
    }

    fn read(file: &[u8], origin: Origin) -> (Option<Metas>, Findings) {
        let mut findings = Findings::default();
        let metas = Metas::read(&file, file.len() as u64, origin, &mut findings).unwrap();
        (metas, findings)
    }

    #[test]
    fn a_real_pair_is_read_and_written_back() {
        let (metas, findings) = read(&streamed(), Origin::Streamed);
        assert!(findings.is_empty(), "{findings:?}");
        let chosen = metas.unwrap().chosen;
        assert_eq!((chosen.root, chosen.high_water, chosen.txid), (4, 14, 16));
        assert_eq!(chosen.stored_freelist(), None);
        for (number, text) in STREAMED.iter().enumerate() {
            let bytes = hex::decode(text).unwrap();
            let meta = Meta::parse(&bytes).unwrap();
            assert_eq!(encode_meta(number as u64, &meta).as_slice(), bytes);
        }
    }

    #[test]
    fn the_page_size_is_found_without_page_0() {
        let mut file = streamed();
        file[30] ^= 1;
        let (metas, findings) = read(&file, Origin::Streamed);
        assert_eq!(metas.unwrap().chosen.txid, 15);
        assert_eq!(findings.errors_in(Layer::Meta), 1);
        let (_, findings) = read(&file, Origin::File);
        assert_eq!(findings.errors(), 0);
        assert_eq!(findings.warnings_in(Layer::Meta), 1);
    }

    #[test]
    fn a_cut_file_and_a_big_endian_one_are_named() {
        let mut file = streamed();
        file.truncate(13 * 4096);
        let (_, findings) = read(&file, Origin::Streamed);
        assert!(findings.listed()[0].found.contains("truncated"));
        let mut file = streamed();
        file[16..20].reverse();
        file[4096 + 16..4096 + 20].reverse();
        let (metas, findings) = read(&file, Origin::File);
        assert!(metas.is_none());
        assert!(findings.listed()[0].found.contains("big-endian"));
    }

    #[test]
    fn other_files_are_not_databases() {
        for file in [&b""[..], b"x", &[0; 79], &[0xff; 9000]] {
            let (metas, findings) = read(file, Origin::File);
            assert!(metas.is_none());
            assert!(findings.errors_in(Layer::Meta) > 0);
        }
    }
}
