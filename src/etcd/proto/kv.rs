//! The requests that change the key-value store and what belongs to it (`rpc.proto` of
//! `etcdserverpb`), as far as applying them needs.

use super::{Fault, Field, Fields, WireError};

/// How deep transactions may nest: each level costs a few bytes of the request only.
const NESTED_MAX: u32 = 64;

/// The keys that a request is about: one, or all from `key` on below `end`, where an empty `end`
/// has no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span<'a> {
    /// The only key, or the first.
    pub key: &'a [u8],
    /// Where the range ends; `None` for a single key.
    pub end: Option<&'a [u8]>,
}

impl<'a> Span<'a> {
    /// A single zero byte stands for no bound at all (etcd, `mkGteRange`).
    fn set_end(&mut self, end: &'a [u8]) {
        self.end = Some(if end == [0] { &[] } else { end });
    }
}

/// A `PutRequest`: key=1, value=2, lease=3, prev_kv=4, ignore_value=5, ignore_lease=6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Put<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The lease it is attached to; 0 for none.
    pub lease: i64,
    /// Whether the value that is there stays.
    pub ignore_value: bool,
    /// Whether the lease that is there stays.
    pub ignore_lease: bool,
}

impl<'a> Put<'a> {
    /// Reads a request.
    pub fn decode(fields: Fields<'a>) -> Result<Self, WireError> {
        let mut put = Self::default();
        for field in fields {
            let field = field?;
            match field.number {
                1 => put.key = field.bytes()?,
                2 => put.value = field.bytes()?,
                3 => put.lease = field.i64()?,
                5 => put.ignore_value = field.bool()?,
                6 => put.ignore_lease = field.bool()?,
                _ => {}
            }
        }
        Ok(put)
    }
}

/// The keys of a `DeleteRangeRequest`: key=1, range_end=2.
pub fn delete_range(fields: Fields<'_>) -> Result<Span<'_>, WireError> {
    let mut span = Span::default();
    for field in fields {
        let field = field?;
        match field.number {
            1 => span.key = field.bytes()?,
            2 => span.set_end(field.bytes()?),
            _ => {}
        }
    }
    Ok(span)
}

/// What a [`Compare`] looks at, and holds against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// How often the key was put since it was created.
    Version(i64),
    /// The revision it was created at.
    Create(i64),
    /// The revision it was last put at.
    Mod(i64),
    /// Its value.
    Value(&'a [u8]),
    /// The lease it is attached to.
    Lease(i64),
    /// One that no release knows.
    Other,
}

/// How a comparison must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Equal.
    Equal,
    /// What is there is the greater one.
    Greater,
    /// What is there is the lesser one.
    Less,
    /// Not equal.
    NotEqual,
    /// One that no release knows, which always holds.
    Other,
}

/// A `Compare`: result=1, target=2, key=3, one of version=4, create_revision=5, mod_revision=6,
/// value=7, lease=8, and range_end=64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compare<'a> {
    /// Which keys.
    pub span: Span<'a>,
    /// What of them.
    pub target: Target<'a>,
    /// How it must come out.
    pub outcome: Outcome,
}

impl<'a> Compare<'a> {
    fn decode(fields: Fields<'a>) -> Result<Self, WireError> {
        let (mut span, mut outcome, mut target) = (Span::default(), 0, 0);
        // The last of the alternatives counts, and none but the target's own.
        let mut held: Option<Field<'a>> = None;
        for field in fields {
            let field = field?;
            match field.number {
                1 => outcome = field.i32()?,
                2 => target = field.i32()?,
                3 => span.key = field.bytes()?,
                4 | 5 | 6 | 8 => {
                    field.i64()?;
                    held = Some(field);
                }
                7 => {
                    field.bytes()?;
                    held = Some(field);
                }
                64 => span.set_end(field.bytes()?),
                _ => {}
            }
        }
        let number = |wanted: u32| {
            let own = held.filter(|field| field.number == wanted);
            own.and_then(|field| field.i64().ok()).unwrap_or(0)
        };
        let value = held.filter(|field| field.number == 7);
        Ok(Self {
            span,
            target: match target {
                0 => Target::Version(number(4)),
                1 => Target::Create(number(5)),
                2 => Target::Mod(number(6)),
                3 => Target::Value(value.and_then(|field| field.bytes().ok()).unwrap_or(&[])),
                4 => Target::Lease(number(8)),
                _ => Target::Other,
            },
            outcome: match outcome {
                0 => Outcome::Equal,
                1 => Outcome::Greater,
                2 => Outcome::Less,
                3 => Outcome::NotEqual,
                _ => Outcome::Other,
            },
        })
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op<'a> {
    /// A range; all that matters is the revision that it is asked for at.
    Range {
        /// The revision; 0 for the current one.
        revision: i64,
    },
    /// A put.
    Put(Put<'a>),
    /// A deletion.
    Delete(Span<'a>),
    /// A transaction within.
    Txn(Txn<'a>),
    /// Nothing at all.
    Empty,
}

/// A `TxnRequest`: compare=1, success=2, failure=3.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn<'a> {
    /// What must hold.
    pub compares: Vec<Compare<'a>>,
    /// What is done if it does.
    pub success: Vec<Op<'a>>,
    /// What is done if it does not.
    pub failure: Vec<Op<'a>>,
}

impl<'a> Txn<'a> {
    /// Reads a request.
    pub fn decode(fields: Fields<'a>) -> Result<Self, WireError> {
        Self::nested(fields, 0)
    }

    fn nested(fields: Fields<'a>, depth: u32) -> Result<Self, WireError> {
        let mut txn = Self::default();
        for field in fields {
            let field = field?;
            match field.number {
                1 => txn.compares.push(Compare::decode(field.message()?)?),
                2 => txn.success.push(Op::decode(&field, depth)?),
                3 => txn.failure.push(Op::decode(&field, depth)?),
                _ => {}
            }
        }
        Ok(txn)
    }

    /// Whether it only reads, by etcd's own rule: ranges and nothing else, on both ways.
    pub fn is_read_only(&self) -> bool {
        let ops = self.success.iter().chain(&self.failure);
        ops.into_iter().all(|op| matches!(op, Op::Range { .. }))
    }
}

impl<'a> Op<'a> {
    fn decode(field: &Field<'a>, depth: u32) -> Result<Self, WireError> {
        let mut op = Self::Empty;
        for inner in field.message()? {
            let inner = inner?;
            op = match inner.number {
                1 => Self::Range {
                    revision: last_number(inner.message()?, 4)?,
                },
                2 => Self::Put(Put::decode(inner.message()?)?),
                3 => Self::Delete(delete_range(inner.message()?)?),
                4 if depth < NESTED_MAX => Self::Txn(Txn::nested(inner.message()?, depth + 1)?),
                4 => {
                    return Err(WireError {
                        offset: inner.offset,
                        fault: Fault::TooMany { field: 4 },
                    });
                }
                _ => op,
            };
        }
        Ok(op)
    }
}

/// A 64-bit number among a message's fields; 0 if it is absent.
pub fn last_number(fields: Fields<'_>, number: u32) -> Result<i64, WireError> {
    let mut found = 0;
    for field in fields {
        let field = field?;
        if field.number == number {
            found = field.i64()?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{put_bytes, put_u64};
    use super::*;

    fn message(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        build(&mut out);
        out
    }

    #[test]
    fn a_transaction_is_read() {
        let compare = message(|out| {
            put_u64(out, 1, 3);
            put_u64(out, 2, 2);
            put_bytes(out, 3, b"k");
            put_u64(out, 6, 7);
            put_bytes(out, 64, b"\0");
        });
        let put = message(|out| {
            put_bytes(out, 1, b"k");
            put_bytes(out, 2, b"v");
            put_u64(out, 3, 9);
        });
        let op = message(|out| put_bytes(out, 2, &put));
        let inner = message(|out| put_bytes(out, 3, &op));
        let nested = message(|out| put_bytes(out, 4, &inner));
        let bytes = message(|out| {
            put_bytes(out, 1, &compare);
            put_bytes(out, 2, &op);
            put_bytes(out, 2, &nested);
            put_bytes(out, 3, b"");
        });
        let txn = Txn::decode(Fields::new(&bytes)).unwrap();
        assert_eq!(txn.compares[0].outcome, Outcome::NotEqual);
        assert_eq!(txn.compares[0].target, Target::Mod(7));
        assert_eq!(txn.compares[0].span.end, Some(&b""[..]));
        let Op::Put(put) = &txn.success[0] else {
            panic!("no put")
        };
        assert_eq!((put.key, put.value, put.lease), (&b"k"[..], &b"v"[..], 9));
        assert!(matches!(&txn.success[1], Op::Txn(inner) if inner.failure.len() == 1));
        assert_eq!(txn.failure, [Op::Empty]);
        assert!(!txn.is_read_only());
        // An alternative that is not the target's own counts for nothing.
        let other = message(|out| {
            put_u64(out, 2, 1);
            put_u64(out, 6, 7);
        });
        let compare = Compare::decode(Fields::new(&other)).unwrap();
        assert_eq!(compare.target, Target::Create(0));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = Vec::new();
        for _ in 0..200 {
            let op = message(|out| put_bytes(out, 4, &bytes));
            bytes = message(|out| put_bytes(out, 2, &op));
        }
        assert!(Txn::decode(Fields::new(&bytes)).is_err());
    }
}
