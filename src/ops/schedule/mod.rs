//! `schedule`: backups again and again, one for each period.
//!
//! ```text
//! cron ── the periods         pace ── what is due now: a pure function of the time, the newest set
//!   └────────────────────────────────── and what the runs before came to
//! rotation ── which old set is verified next          runner ── the loop around both
//! leader ── whether the others go first
//! ```

mod cron;
mod leader;
mod notify;
mod pace;
mod rotation;
mod runner;

pub use cron::{Period, Schedule};
pub use leader::leads_others;
pub use notify::Notifier;
pub use pace::{Due, Pace, spread};
pub use rotation::{newest_whole, next_to_verify};
pub use runner::{Ended, GRACE, Run, Work, run};
