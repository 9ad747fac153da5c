//! What the writer writes the reader finds, and nothing else; damage is noticed; no bytes make the reader panic.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use deputy_nss_format::layout::{HEADER, Header, PAGE, Page, RECORD_HEAD, RecordHead, Table, keyed};
use deputy_nss_format::{
    Account, Content, Cursor, Fault, FilesIdentity, Group, Map, Range, Ranges, Refusal, Taken, image,
};

const SEED: [u8; 16] = *b"0123456789abcdef";

fn ranges() -> Ranges {
    Ranges { uid: Range::new(10_000, 99_999).unwrap(), gid: Range::new(5000, 99_999).unwrap() }
}

fn account(name: &str, uid: u32) -> Account {
    Account {
        name: name.into(),
        uid,
        gid: 5000 + uid % 7,
        gecos: if uid.is_multiple_of(2) { String::new() } else { format!("Person {uid}") },
        home: format!("/home/{name}"),
        shell: "/bin/sh".into(),
    }
}

/// Accounts, and groups of which every seventh account is a member, in no order.
fn content(accounts: u32) -> Content {
    let mut content = Content::default();
    for n in (0..accounts).rev() {
        content.accounts.push(account(&format!("a{n}"), 10_000 + n * 2));
    }
    for group in 0..7 {
        let members = (0..accounts).filter(|n| n % 7 == group).map(|n| format!("a{n}")).chain(["all".into()]);
        content.groups.push(Group {
            name: format!("g{group}"),
            gid: 5006 - group,
            members: members.collect(),
        });
    }
    content
}

fn open(bytes: &[u8]) -> Result<Map<&[u8]>, Fault> {
    Map::open(bytes, bytes.len() as u64)
}

/// Everything that can be asked about this content, as lines; the first fault ends it.
fn ask_everything(bytes: &[u8], accounts: u32) -> Result<Vec<String>, Fault> {
    let map = open(bytes)?;
    let mut lines = Vec::new();
    let mut space = vec![0; 1 << 16];
    for n in 0..accounts {
        let by_name = map.account_by_name(format!("a{n}").as_bytes(), &mut space[..])?;
        lines.push(format!("{by_name:?} {:?}", by_name.map(|found| space[..found.length].to_vec())));
        lines.push(format!("{:?}", map.account_by_uid(10_000 + n * 2, &mut space[..])?));
        lines.push(format!("{:?}", map.account_by_uid(10_001 + n * 2, &mut space[..])?));
    }
    for n in 0..8 {
        let by_name = map.group_by_name(format!("g{n}").as_bytes(), &mut space[..])?;
        lines.push(format!("{by_name:?} {:?}", by_name.map(|found| space[..found.length].to_vec())));
        let mut name = [0; deputy_nss_format::read::MAX_NAME];
        lines.push(format!("{:?}", map.group_by_gid(5000 + n, &mut space[..])?));
        lines.push(format!("{:?} {name:?}", map.group_name(5000 + n, &mut name)?));
    }
    for member in ["a0", "a1", "all", "nobody", ""] {
        let mut gids = Vec::new();
        let any = map.groups_of(member.as_bytes(), |gid| {
            gids.push(gid);
            ControlFlow::Continue(())
        })?;
        lines.push(format!("{any} {gids:?}"));
    }
    let mut cursor = Cursor::at(0);
    // A crafted order could be longer than the file has accounts; it ends all the same, since ids only grow.
    while let Some((found, behind)) = map.next_account(cursor, &mut space[..])? {
        lines.push(format!("{found:?}"));
        cursor = behind;
    }
    cursor = Cursor::at(0);
    while let Some((found, behind)) = map.next_group(cursor, &mut space[..])? {
        lines.push(format!("{found:?}"));
        cursor = behind;
    }
    Ok(lines)
}

#[test]
fn everything_written_is_found_and_nothing_else() {
    for size in [0, 1, 15, 16, 500, 20_000] {
        let content = content(size);
        let bytes = image(&content, &ranges(), SEED).unwrap();
        let map = open(&bytes).unwrap();
        let mut space = vec![0; 1 << 16];
        for account in &content.accounts {
            let found = map.account_by_name(account.name.as_bytes(), &mut space[..]).unwrap().unwrap();
            assert_eq!((found.uid, found.gid), (account.uid, account.gid));
            let text = format!("{}\0{}\0{}\0{}\0", account.name, account.gecos, account.home, account.shell);
            assert_eq!(&space[..found.length], text.as_bytes());
            assert!(text[found.gecos..].starts_with(&format!("{}\0", account.gecos)));
            assert!(text[found.home..].starts_with(&account.home) && text[found.shell..] == *"/bin/sh\0");
            assert_eq!(map.account_by_uid(account.uid, &mut space[..]).unwrap(), Some(found));
            assert_eq!(map.account_by_uid(account.uid + 1, &mut space[..]).unwrap(), None);
            let other = format!("{}x", account.name);
            assert_eq!(map.account_by_name(other.as_bytes(), &mut space[..]).unwrap(), None);
        }
        let mut uids = Vec::new();
        let mut cursor = Cursor::at(0);
        while let Some((found, behind)) = map.next_account(cursor, &mut space[..]).unwrap() {
            uids.push(found.uid);
            cursor = Cursor::unpack(behind.pack());
        }
        assert_eq!(uids, (0..size).map(|n| 10_000 + n * 2).collect::<Vec<_>>());
        for group in &content.groups {
            let found = map.group_by_gid(group.gid, &mut space[..]).unwrap().unwrap();
            let text = format!("{}\0{}\0", group.name, group.members.join("\0"));
            assert_eq!((found.members, &space[..found.length]), (group.members.len(), text.as_bytes()));
            assert_eq!(map.group_by_name(group.name.as_bytes(), &mut space[..]).unwrap(), Some(found));
        }
        let mut gids = Vec::new();
        let push = |gid| {
            gids.push(gid);
            if gids.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(map.groups_of(b"all", push).unwrap());
        assert_eq!(gids, [5000, 5001, 5002], "it stops when told to");
        assert!(!map.groups_of(b"al", |_| ControlFlow::Continue(())).unwrap());
    }
}

#[test]
fn an_enumeration_goes_on_behind_an_id_that_is_no_longer_there() {
    let bytes = image(&content(500), &ranges(), SEED).unwrap();
    let map = open(&bytes).unwrap();
    let mut space = [0; 256];
    for (at, page) in
        [(10_000_u32, 0_u32), (10_001, 0), (10_001, 7), (10_998, 3), (10_061, u32::MAX), (10_061, 0)]
    {
        let cursor = Cursor::unpack(u64::from(at) << 31 | u64::from(page & 0x7fff_ffff));
        let (found, _) = map.next_account(cursor, &mut space[..]).unwrap().unwrap();
        assert_eq!(found.uid, at.next_multiple_of(2), "{at} {page}");
    }
    assert_eq!(map.next_account(Cursor::at(10_999), &mut space[..]).unwrap(), None);
}

#[test]
fn a_buffer_is_too_small_until_it_is_enough() {
    let bytes = image(&content(3), &ranges(), SEED).unwrap();
    let map = open(&bytes).unwrap();
    let enough = "a1\0\0/home/a1\0/bin/sh\0".len();
    for length in 0..=enough {
        let mut space = vec![0; length];
        let found = map.account_by_name(b"a1", &mut space[..]);
        assert_eq!(found.is_ok(), length == enough, "{length}");
        assert_eq!(found.err(), (length < enough).then_some(Fault::NoSpace));
    }
}

#[test]
fn the_writer_refuses_what_it_may_not_write() {
    let wrong = |change: &dyn Fn(&mut Content)| {
        let mut content = content(10);
        change(&mut content);
        image(&content, &ranges(), SEED).unwrap_err()
    };
    let long = "a".repeat(65);
    for name in ["", "0a", "-a", "+a", ".a", "a b", "a:b", "a/b", "a\n", "ä", &long] {
        assert_eq!(wrong(&|c| c.accounts[0].name = name.into()), Refusal::Name(name.into()));
        assert_eq!(wrong(&|c| c.groups[0].name = name.into()), Refusal::Name(name.into()));
    }
    for member in ["", "a,b", "a:b", "a\nb"] {
        assert_eq!(wrong(&|c| c.groups[0].members[0] = member.into()), Refusal::Name(member.into()));
    }
    let at = |name: &str| Refusal::OutOfRange(name.into());
    assert_eq!(wrong(&|c| c.accounts[0].uid = 9999), at("a9"));
    assert_eq!(wrong(&|c| c.accounts[0].gid = 0), at("a9"));
    assert_eq!(wrong(&|c| c.accounts[0].uid = 65534), at("a9"));
    assert_eq!(wrong(&|c| c.groups[0].gid = 4999), at("g0"));
    assert_eq!(wrong(&|c| c.accounts[1].uid = c.accounts[0].uid), Refusal::Twice("a8".into()));
    assert_eq!(wrong(&|c| c.accounts[1].name = "a9".into()), Refusal::Twice("a9".into()));
    assert_eq!(wrong(&|c| c.groups[1].gid = c.groups[0].gid), Refusal::Twice("g1".into()));
    assert_eq!(wrong(&|c| c.accounts[0].home = "/a:b".into()), Refusal::Field("a9".into()));
    assert_eq!(wrong(&|c| c.accounts[0].gecos = "a\nroot::0:0".into()), Refusal::Field("a9".into()));
    let files = |text: &str| Taken::from_text(text.as_bytes(), FilesIdentity::NONE);
    assert_eq!(wrong(&|c| c.taken_accounts = files("  a3:x:1:1::/:/bin/sh")), Refusal::InFiles("a3".into()));
    assert_eq!(wrong(&|c| c.taken_accounts = files("b:x:10006:1::/:\n")), Refusal::InFiles("a3".into()));
    assert_eq!(wrong(&|c| c.taken_groups = files("x:x:5006:")), Refusal::InFiles("g0".into()));
}

/// Made-up numbers that are the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Damage of one of several sorts.
fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    let length = bytes.len();
    match numbers.below(6) {
        0 => bytes[numbers.below(length)] ^= 1 << numbers.below(8),
        1 => (0..=numbers.below(8)).for_each(|_| bytes[numbers.below(length)] = numbers.byte()),
        2 => bytes.truncate(numbers.below(length)),
        3 => bytes.extend((0..=numbers.below(400)).map(|n| n.to_le_bytes()[0])),
        4 => {
            // A piece of itself in another place, as after a write to the wrong block.
            let (from, to) = (numbers.below(length), numbers.below(length));
            let piece = bytes[from..length.min(from + PAGE)].to_vec();
            let end = length.min(to + piece.len());
            bytes[to..end].copy_from_slice(&piece[..end - to]);
        }
        _ => {
            let (from, many) = (numbers.below(length), numbers.below(512));
            bytes[from..length.min(from + many)].fill(0);
        }
    }
}

#[test]
fn damage_is_noticed_or_makes_no_difference() {
    let good = image(&content(20), &ranges(), SEED).unwrap();
    let right = ask_everything(&good, 20).unwrap();
    let mut numbers = Numbers(88_172_645_463_325_252);
    let mut noticed: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..40_000 {
        let mut bytes = good.clone();
        damage(&mut bytes, &mut numbers);
        match ask_everything(&bytes, 20) {
            Ok(lines) => assert_eq!(lines, right, "round {round}"),
            Err(fault) => *noticed.entry(format!("{fault:?}")).or_default() += 1,
        }
    }
    assert!(noticed["Damaged"] > 20_000, "{noticed:?}");
    assert_eq!(noticed.keys().filter(|fault| *fault != "Damaged" && *fault != "Version").count(), 0);
}

/// Makes every checksum right again, as far as there are still pages and records: as if somebody had written this.
fn sign(bytes: &mut [u8], before: &Header, records: &[(usize, usize)]) {
    for (table, pages) in before.tables.iter().map(|table| (table.offset, table.pages)) {
        for page in 0..pages {
            let at = usize::try_from(table).unwrap() + usize::try_from(page).unwrap() * PAGE;
            let sum = keyed(&SEED, at as u64, &bytes[at..at + PAGE - 8]);
            bytes[at + PAGE - 8..at + PAGE].copy_from_slice(&sum.to_le_bytes());
            let place: &[u8; PAGE] = bytes[at..].first_chunk().unwrap();
            assert!(Page::decode(place, &SEED, at as u64).is_some());
        }
    }
    for &(at, body) in records {
        let sum = keyed(&SEED, at as u64, &bytes[at + RECORD_HEAD..at + RECORD_HEAD + body]);
        bytes[at + 16..at + 24].copy_from_slice(&sum.to_le_bytes());
        let sum = keyed(&SEED, at as u64, &bytes[at..at + 24]);
        bytes[at + 24..at + 32].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = keyed(&SEED, 0, &bytes[..HEADER - 8]);
    bytes[HEADER - 8..HEADER].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn no_bytes_make_the_reader_panic_or_go_round_for_ever() {
    let good = image(&content(20), &ranges(), SEED).unwrap();
    let header = Header::decode(good.first_chunk().unwrap(), good.len() as u64).unwrap();
    // Where the records are, and how long their bodies: by the order tables and the members' table.
    let mut records = Vec::new();
    for table in [Table::AccountOrder, Table::GroupOrder, Table::Members] {
        let at = header.table(table);
        for page in 0..at.pages {
            let offset = at.offset + page * PAGE as u64;
            let bytes: &[u8; PAGE] = good[usize::try_from(offset).unwrap()..].first_chunk().unwrap();
            for slot in Page::decode(bytes, &SEED, offset).unwrap().filled() {
                let record = slot.reference as usize * 8;
                let kind = match table {
                    Table::AccountOrder => deputy_nss_format::layout::Kind::Account,
                    Table::GroupOrder => deputy_nss_format::layout::Kind::Group,
                    _ => deputy_nss_format::layout::Kind::Member,
                };
                let head = good[record..].first_chunk().unwrap();
                let head = RecordHead::decode(head, &SEED, record as u64, kind).unwrap();
                records.push((record, head.body as usize));
            }
        }
    }
    assert!(records.len() > 40);
    let mut numbers = Numbers(2_463_534_242_000_001);
    let mut answered = 0;
    for _ in 0..40_000 {
        let mut bytes = good.clone();
        // The fields that are believed once the checksum is right: tables, slots, heads, bodies; not the seed.
        for _ in 0..=numbers.below(4) {
            let (at, length) = match numbers.below(4) {
                0 => (152, 112),
                1 => (HEADER, records[0].0 - HEADER),
                2 => (records[numbers.below(records.len())].0, 16),
                _ => (records[0].0, good.len() - records[0].0),
            };
            let at = at + numbers.below(length);
            bytes[at] =
                if numbers.below(2) == 0 { numbers.byte() } else { bytes[at] ^ 1 << numbers.below(8) };
        }
        sign(&mut bytes, &header, &records);
        answered += u32::from(ask_everything(&bytes, 20).is_ok());
    }
    assert!(answered > 1000, "{answered}: the checksums were not right");
}
