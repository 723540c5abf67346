//! Damage of every kind, with the trailer out of the way: what the structure and the meaning of
//! the data alone reveal.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use etcd_client::{
    AlarmAction, AlarmType, CompactionOptions, LeaseGrantOptions, Permission, PutOptions,
};
use etcd_dr::etcd::bbolt::{Large, Leaf, Metas, Nested, Order, Origin, Root, Visitor, Walker};
use etcd_dr::etcd::snapshot::{LayerState, Options, Report, inspect};
use etcd_dr::finding::{Findings, Layer, Place};

use crate::etcd::{Member, Release, releases_or_skip, snapshot};
use testbench::database::model::{Op, Store};
use testbench::database::writer::{Freelist, Random, Shape, seal, write};

fn look(file: &[u8]) -> Report {
    let options = Options {
        trailer: false,
        ..Options::default()
    };
    inspect(&file, &options, &|_| {}).unwrap()
}

/// What a byte of a database is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// A page that nothing refers to, or the end of one after its data.
    Unused,
    Meta,
    Freelist,
    PageHeader,
    ElementTable,
    Separator,
    BucketName,
    BucketHeader,
    RevisionKey,
    /// Tags, lengths and numbers of a KeyValue.
    KeyValueForm,
    UserKey,
    UserValue,
    LeaseKey,
    LeaseValue,
    MetaKey,
    MetaValue,
    MembersKey,
    MembersValue,
    OtherKey,
    OtherValue,
}

/// Everything in a database: bucket, key, value.
type Content = Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>;

struct Survey<'a> {
    bucket: Vec<u8>,
    page_size: usize,
    roles: &'a mut Vec<Role>,
    content: &'a mut Content,
    tops: Vec<(Vec<u8>, Root)>,
    /// Leaf pages with something in them.
    heads: &'a mut BTreeSet<u64>,
}

impl Survey<'_> {
    fn mark(&mut self, place: Place, len: usize, role: Role) -> usize {
        let Place::Page { page, offset } = place else {
            panic!("{place}")
        };
        self.heads.insert(page);
        let at = page as usize * self.page_size + offset as usize;
        self.roles[at..at + len].fill(role);
        at
    }

    fn key_value(&mut self, at: usize, value: &[u8]) {
        self.roles[at..at + value.len()].fill(Role::KeyValueForm);
        let mut next = 0;
        while next < value.len() {
            let tag = value[next];
            let (number, len) = varint(&value[next + 1..]);
            next += 1 + len;
            if tag & 7 == 2 {
                let role = if tag == 0x0a {
                    Role::UserKey
                } else {
                    Role::UserValue
                };
                self.roles[at + next..at + next + number].fill(role);
                next += number;
            }
        }
    }
}

fn varint(bytes: &[u8]) -> (usize, usize) {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value, index + 1);
        }
    }
    panic!("cut short")
}

impl Visitor for Survey<'_> {
    fn leaf(&mut self, leaf: &Leaf<'_>, _: &mut Findings) -> io::Result<()> {
        for entry in leaf.entries() {
            if let Some(root) = entry.root() {
                self.tops.push((entry.key.to_vec(), root));
                self.mark(entry.place(), entry.key.len(), Role::BucketName);
                self.mark(entry.value_place(0), 16, Role::BucketHeader);
                continue;
            }
            let (key, value) = match self.bucket.as_slice() {
                b"key" => (Role::RevisionKey, Role::KeyValueForm),
                b"lease" => (Role::LeaseKey, Role::LeaseValue),
                b"meta" => (Role::MetaKey, Role::MetaValue),
                b"members" => (Role::MembersKey, Role::MembersValue),
                _ => (Role::OtherKey, Role::OtherValue),
            };
            self.mark(entry.place(), entry.key.len(), key);
            let at = self.mark(entry.value_place(0), entry.value.len(), value);
            if self.bucket == b"key" {
                self.key_value(at, entry.value);
            }
            self.content.push((
                self.bucket.clone(),
                entry.key.to_vec(),
                entry.value.to_vec(),
            ));
        }
        Ok(())
    }

    fn large(&mut self, _: &Large<'_>, _: &mut Findings) -> io::Result<()> {
        panic!("no such element here")
    }
}

/// Surveys a sound database: the role of each byte, and the content.
fn survey(file: &[u8]) -> (Vec<Role>, Content) {
    let data = (file.len() - 32) as u64;
    let mut unheard = Findings::default();
    let metas = Metas::read(&file, data, Origin::Streamed, &mut unheard).unwrap();
    let meta = metas.unwrap().chosen;
    let page_size = meta.page_size as usize;
    let mut roles = vec![Role::Unused; file.len() - 32];
    for page in [0, 1] {
        roles[page * page_size..][..80].fill(Role::Meta);
    }
    let mut content = Content::new();
    let mut heads = BTreeSet::new();
    let mut walker = Walker::new(&file, data, &meta, &|_| {});
    let mut roots = vec![(Vec::new(), Root::Page(meta.root))];
    while let Some((bucket, root)) = roots.pop() {
        let mut seen = Survey {
            bucket,
            page_size,
            roles: &mut roles,
            content: &mut content,
            tops: Vec::new(),
            heads: &mut heads,
        };
        walker
            .walk(
                root,
                Order::Ascending,
                Nested::Leave,
                &mut seen,
                &mut unheard,
            )
            .unwrap();
        roots.append(&mut seen.tops);
        if let Root::Inline { page, offset, .. } = root {
            head(
                file,
                &mut roles,
                page as usize * page_size + offset as usize,
            );
        }
    }
    for page in 2..meta.high_water {
        let at = page as usize * page_size;
        if heads.contains(&page) {
            head(file, &mut roles, at);
        } else if roles[at] == Role::Unused
            && file[at + 8] == 1
            && file[at..at + 8] == page.to_le_bytes()
        {
            branch(file, &mut roles, at);
        }
    }
    if let Some(page) = meta.stored_freelist() {
        let at = page as usize * page_size;
        let count = usize::from(u16::from_le_bytes([file[at + 10], file[at + 11]]));
        roles[at..at + 16 + 8 * count].fill(Role::Freelist);
    }
    content.sort();
    (roles, content)
}

/// A branch page; one that is free is among them, and flips there have no effect.
fn branch(file: &[u8], roles: &mut [Role], at: usize) {
    head(file, roles, at);
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes([file[at + 10], file[at + 11]]));
    for element in (0..count).map(|n| at + 16 + 16 * n) {
        let key = element + word(element);
        roles[key..key + word(element + 4)].fill(Role::Separator);
    }
}

fn head(file: &[u8], roles: &mut [Role], at: usize) {
    let count = usize::from(u16::from_le_bytes([file[at + 10], file[at + 11]]));
    roles[at..at + 16].fill(Role::PageHeader);
    roles[at + 16..at + 16 + 16 * count].fill(Role::ElementTable);
}

#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    flips: u32,
    errors: u32,
    warnings: u32,
    /// Not reported, and the content is the same.
    without_effect: u32,
    /// Not reported, and the content is another.
    unseen: u32,
    /// The first and last place in a line of bytes of the same role where that was so.
    where_unseen: Option<(usize, usize)>,
}

/// Flips each bit of each byte; of users' values one bit a byte, of unused bytes one in seven.
fn campaign(file: &[u8]) -> BTreeMap<Role, Outcome> {
    let sound = look(file);
    assert!(sound.findings.is_empty(), "{:#?}", sound.findings);
    let (roles, content) = survey(file);
    let mut outcomes: BTreeMap<Role, Outcome> = BTreeMap::new();
    let mut file = file.to_vec();
    for (at, role) in roles.iter().enumerate() {
        let bits = match role {
            Role::Unused if at % 7 != 0 => continue,
            Role::Unused | Role::UserValue => at % 8..at % 8 + 1,
            _ => 0..8,
        };
        for bit in bits {
            file[at] ^= 1 << bit;
            let report = look(&file);
            let outcome = outcomes.entry(*role).or_default();
            outcome.flips += 1;
            if report.findings.errors() > 0 {
                outcome.errors += 1;
            } else if !report.findings.is_empty() {
                outcome.warnings += 1;
            } else if survey(&file).1 == content {
                outcome.without_effect += 1;
            } else {
                outcome.unseen += 1;
                let begin = roles[..at].iter().rposition(|r| r != role);
                let offset = at - begin.map_or(0, |b| b + 1);
                let (low, high) = outcome.where_unseen.unwrap_or((offset, offset));
                outcome.where_unseen = Some((low.min(offset), high.max(offset)));
            }
            file[at] ^= 1 << bit;
        }
    }
    outcomes
}

fn judge(name: &str, outcomes: &BTreeMap<Role, Outcome>) {
    println!("{name}");
    for (role, o) in outcomes {
        println!(
            "  {role:?}: {} flips, {} errors, {} warnings, {} without effect, {} unseen",
            o.flips, o.errors, o.warnings, o.without_effect, o.unseen
        );
    }
    for (role, outcome) in outcomes {
        match role {
            // Text and numbers whose every value is possible: only the trailer guards them.
            Role::UserKey
            | Role::UserValue
            | Role::LeaseValue
            | Role::MetaValue
            | Role::MembersValue
            | Role::OtherValue
            | Role::KeyValueForm => {}
            // The sub revision of what is compacted has no neighbours to tell it by.
            Role::RevisionKey => {
                let (low, _) = outcome.where_unseen.unwrap_or((9, 0));
                assert!(low >= 9, "{outcome:?}");
            }
            Role::Unused => assert_eq!((outcome.errors, outcome.unseen), (0, 0)),
            // A separator may be lower than the keys it stands for, and shorter.
            Role::Separator | Role::ElementTable => assert_eq!(outcome.unseen, 0, "{role:?}"),
            _ => assert_eq!((outcome.unseen, outcome.without_effect), (0, 0), "{role:?}"),
        }
    }
}

#[test]
fn flipped_bytes_in_generated_snapshots_are_found() {
    for (name, shape) in [
        (
            "small pages",
            Shape {
                page_size: 1024,
                fill: 400,
                gaps: 1,
                ..Shape::default()
            },
        ),
        (
            "a stored freelist",
            Shape {
                page_size: 1024,
                fill: 1000,
                gaps: 2,
                freelist: Freelist::Stored,
                ..Shape::default()
            },
        ),
    ] {
        let mut random = Random(77);
        let mut store = Store::random(&mut random, 14, 6, false);
        store.compact(store.revision - 6, true);
        let file = seal(write(&store.buckets(), &shape).bytes);
        judge(name, &campaign(&file));
    }
}

async fn small_store(release: &Release) -> Vec<u8> {
    let member = Member::start(release);
    let mut client = member.client().await;
    let lease = LeaseGrantOptions::new().with_id(0x1234_5678);
    client.lease_grant(6000, Some(lease)).await.unwrap();
    for round in 0..3 {
        for key in ["/registry/pods/a", "/registry/pods/b", "/registry/events/c"] {
            let leased = PutOptions::new().with_lease(0x1234_5678);
            client
                .put(key, format!("value {round}"), Some(leased))
                .await
                .unwrap();
        }
        client.delete("/registry/pods/b", None).await.unwrap();
    }
    let physical = CompactionOptions::new().with_physical();
    client.compact(8, Some(physical)).await.unwrap();
    client
        .alarm(AlarmAction::Activate, AlarmType::Corrupt, None)
        .await
        .unwrap();
    client.role_add("reader").await.unwrap();
    client
        .role_grant_permission("reader", Permission::read("/a"))
        .await
        .unwrap();
    client.user_add("someone", "secret", None).await.unwrap();
    client.user_grant_role("someone", "reader").await.unwrap();
    snapshot(&mut client).await
}

#[test]
fn flipped_bytes_in_real_snapshots_are_found() {
    for release in releases_or_skip("flipped_bytes_in_real_snapshots_are_found") {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let file = runtime.block_on(small_store(&release));
        judge(&release.version, &campaign(&file));
    }
}

/// Some bytes of a snapshot with branch pages, big values and many keys.
#[test]
fn flipped_bytes_in_a_larger_snapshot_are_found() {
    let mut random = Random(5);
    let mut store = Store::random(&mut random, 900, 150, false);
    for n in 0..3u8 {
        store.txn(vec![Op::Put(vec![b'b', n], vec![n; 30_000], 0)]);
    }
    store.compact(store.revision - 300, false);
    let shape = Shape {
        fill: 3000,
        ..Shape::default()
    };
    let file = seal(write(&store.buckets(), &shape).bytes);
    let (roles, content) = survey(&file);
    let mut flipped = file.clone();
    let structure: Vec<usize> = (0..roles.len())
        .filter(|at| !matches!(roles[*at], Role::Unused | Role::UserValue | Role::UserKey))
        .collect();
    let mut unseen = 0;
    for _ in 0..500 {
        let at = structure[random.below(structure.len() as u64) as usize];
        let bit = 1 << random.below(8);
        flipped[at] ^= bit;
        if look(&flipped).findings.is_empty() {
            let same = survey(&flipped).1 == content;
            let allowed = matches!(
                roles[at],
                Role::KeyValueForm
                    | Role::RevisionKey
                    | Role::LeaseValue
                    | Role::MetaValue
                    | Role::MembersValue
                    | Role::OtherKey
                    | Role::OtherValue
            );
            assert!(same || allowed, "{:?} at {at}", roles[at]);
            unseen += u32::from(!same);
        }
        flipped[at] ^= bit;
    }
    assert!(unseen < 25, "{unseen} of 500");
}

#[test]
fn truncation_is_found_at_every_page() {
    let store = Store::random(&mut Random(4), 400, 30, true);
    for page_size in [1024, 4096] {
        let shape = Shape {
            page_size,
            fill: page_size as usize,
            ..Shape::default()
        };
        let file = seal(write(&store.buckets(), &shape).bytes);
        let pages = file.len() / page_size as usize;
        for page in 0..pages {
            for extra in [0, 1, 31, 32, 33, 511, 512, 513] {
                let len = page * page_size as usize + extra;
                if len >= file.len() - 32 {
                    continue;
                }
                let report = look(&file[..len]);
                assert!(!report.is_good(), "{len} of {} bytes", file.len());
                assert_eq!(report.status, None);
            }
        }
        // Without the trailer alone nothing is broken, and the state has a name.
        let report = look(&file[..file.len() - 32]);
        assert_eq!(report.findings.errors(), 0, "{:#?}", report.findings);
    }
}

#[test]
fn other_files_than_databases_are_named() {
    let exe = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut random = Random(1);
    let noise: Vec<u8> = (0..70_000).map(|_| random.next_u64() as u8).collect();
    let files: [(&str, Vec<u8>); 8] = [
        ("empty", Vec::new()),
        ("one byte", vec![0]),
        ("zeros", vec![0; 65_536]),
        ("noise", noise),
        ("a program", exe[..300_000].to_vec()),
        ("text", b"apiVersion: v1\nkind: Pod\n".repeat(500)),
        ("gzip", [&[0x1f, 0x8b, 8, 0][..], &[7; 4092]].concat()),
        ("a trailer alone", vec![9; 32]),
    ];
    for (name, file) in files {
        let report = inspect(&file, &Options::default(), &|_| {}).unwrap();
        assert!(!report.is_good(), "{name}");
        assert!(report.facts.is_none(), "{name}");
        assert_eq!(
            report.layer(Layer::Meta),
            Some(&LayerState::Failed),
            "{name}"
        );
    }
}

#[test]
fn the_trailer_sees_every_byte() {
    let store = Store::random(&mut Random(9), 40, 9, true);
    let file = seal(write(&store.buckets(), &Shape::default()).bytes);
    let mut random = Random(2);
    let good = inspect(&file, &Options::default(), &|_| {}).unwrap();
    assert_eq!(good.layer(Layer::Trailer), Some(&LayerState::Ok));
    for _ in 0..300 {
        let mut flipped = file.clone();
        let at = random.below(file.len() as u64) as usize;
        flipped[at] ^= 1 << random.below(8);
        let report = inspect(&flipped, &Options::default(), &|_| {}).unwrap();
        assert_eq!(report.layer(Layer::Trailer), Some(&LayerState::Failed));
    }
}
