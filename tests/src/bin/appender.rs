//! `appender DIR LIFE`: appends to the buffer in DIR until it is killed, and says of each record that it is written.

use std::io::Write;
use std::path::Path;

use protocol::session::Class;
use supervisor::buffer::{self, Config, Limits};
use supervisor::state::StateDir;
use tests::bench::buffer::record;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("a directory");
    let life = arguments.next().and_then(|life| life.parse().ok()).expect("a number");
    let state = StateDir::open(Path::new(&folder)).expect("it can be opened");
    let limits = Limits { size: 64 * 1024 * 1024, reserve: 4 * 1024 * 1024 };
    let mut buffer = buffer::open(&state, &Config { limits, sync_always: false }).expect("it can be opened");
    let mut output = std::io::stdout();
    for n in 0.. {
        let class = Class::ALL[n as usize % Class::ALL.len()];
        let seq = buffer.append(class, &record(class, life, n)).expect("there is room");
        // One write, so that a line is whole or not there.
        output.write_all(format!("{} {seq} {n}\n", class.name()).as_bytes()).expect("the reader lives");
        output.flush().expect("the reader lives");
        if n % 256 == 255 {
            buffer.sync(class).expect("the disk is well");
        }
    }
}
