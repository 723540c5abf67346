//! `schedule`: backups again and again, one for each period.
//!
//! ```text
//! cron ── the periods         pace ── what is due now: a pure function of the time, the newest set
//!   └────────────────────────────────── and what the runs before came to
//! rotation ── which old set is verified next          runner ── the loop around both
//! leader ── whether the others go first           beside ── work that outlasts a run, and deadlines
//! side_work ── copies, verification and rehearsals
//! pulse ── whether all of it is alive
//! ```

mod beside;
mod cron;
mod leader;
mod notify;
mod pace;
mod pulse;
mod rehearsals;
mod rotation;
mod runner;
mod side_work;

pub use beside::{Beside, Waited, bounded, on_a_thread};
pub use cron::{Period, Schedule};
pub use leader::leads_others;
pub use notify::Notifier;
pub use pace::{Due, Pace, spread};
pub use pulse::Pulse;
pub use rehearsals::{Rehearsals, Rehearse};
pub use rotation::{newest_whole, next_to_rehearse, next_to_verify};
pub use runner::{Ended, GRACE, Run, Work, run};
pub use side_work::{SideReport, SideWork, Turns, Verify};
