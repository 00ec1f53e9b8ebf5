//! This terminal, or these pipes, as a task's own.
//!
//! Promises: every byte of output once and in order, also where the gateway was away meanwhile; the terminal is put back
//! whatever happens; control-P control-Q lets go of a task that has a terminal.

use std::io::Write;

use gateway::client::ClientError;
use gateway::client::attach::{Attachment, Heard};
use gateway::client::patience::Patience;
use gateway::exit::{self, Fault};
use protocol::attach::{Ask, Stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::client::{fault, note};
use super::follow::{Followed, Interrupt, Signals, Target, Wish, ended, write};
use super::terminal::{self, Keys, Raw};

/// See a task to its end, or to where the person lets go of it. `fresh`: from its first byte on, else from the tail.
pub(crate) async fn attach(target: &Target, fresh: bool, patience: &Patience) -> Result<Followed, Fault> {
    let mut signals = Signals::new()?;
    let mut person = Person::new()?;
    let gone = {
        let session = session(target, fresh, patience, &mut person);
        tokio::select! {
            session = session => session.map_err(fault)?.map(Wish::Leave),
            // On a raw terminal control-C is a byte, so this one came from elsewhere.
            wish = signals.wish(target, Interrupt::LeaveOrCancel) => Some(wish),
        }
    };
    drop(person);
    match gone {
        Some(wish) => signals.leave(target, wish).await.map(Followed::Left),
        None => ended(target, patience).await.map(|task| Followed::Ended(Box::new(task))).map_err(fault),
    }
}

/// Who types.
struct Person {
    typed: mpsc::Receiver<Vec<u8>>,
    /// Of no further use.
    silent: bool,
    keys: Keys,
    raw: Option<Raw>,
    resized: tokio::signal::unix::Signal,
}

impl Person {
    fn new() -> Result<Person, Fault> {
        let resized = signal(SignalKind::window_change()).map_err(|error| Fault::new(exit::INTERNAL, &error))?;
        Ok(Person { typed: terminal::typed(), silent: false, keys: Keys::default(), raw: None, resized })
    }
}

/// `None` at the task's end, else our exit code.
async fn session(
    target: &Target,
    fresh: bool,
    patience: &Patience,
    person: &mut Person,
) -> Result<Option<u8>, ClientError> {
    let mut cursors = fresh.then_some([0, 0]);
    loop {
        let opened = Attachment::open(&target.client, &target.path(), cursors).await;
        let result = match opened {
            Ok(mut attachment) => {
                patience.back();
                let result = talk(&mut attachment, target, person).await;
                cursors = Some(attachment.cursors);
                result
            }
            Err(error) => Err(error),
        };
        match result {
            Err(error) => patience.bear(error).await?,
            done => return done,
        }
    }
}

async fn talk(attachment: &mut Attachment, target: &Target, person: &mut Person) -> Result<Option<u8>, ClientError> {
    let on_terminal = attachment.attached.terminal.is_some() && terminal::is_there();
    if on_terminal {
        if person.raw.is_none() {
            person.raw = Some(Raw::new().map_err(ClientError::broken)?);
        }
        attachment.ask(Ask { resize: Some(terminal::size()), ..Ask::default() }).await?;
    }
    loop {
        tokio::select! {
            heard = attachment.next() => match heard? {
                Heard::Bytes(stream, bytes) => {
                    if write(stream == Stream::Stderr, bytes).await.is_err() {
                        return Ok(Some(super::follow::BROKEN_PIPE));
                    }
                }
                Heard::Cut(cut) => note(&format!("{} bytes are no longer kept", cut.to - cut.from)),
                Heard::Refused(refused) => note(&format!("{}: {}", refused.what, refused.why)),
                Heard::Exited(_) => return Ok(None),
            },
            typed = person.typed.recv(), if !person.silent => match typed {
                Some(bytes) => {
                    let (bytes, detach) = if on_terminal { person.keys.look(&bytes) } else { (bytes, false) };
                    attachment.input(&bytes).await?;
                    if detach {
                        person.raw = None;
                        attachment.ask(Ask { detach: true, ..Ask::default() }).await?;
                        let again = target.words("attach");
                        // What the task wrote last may have no end of its line.
                        let _ = writeln!(std::io::stderr());
                        note(&format!("task {} runs on; `{again}` brings it back", target.task));
                        return Ok(Some(0));
                    }
                }
                None => {
                    person.silent = true;
                    attachment.ask(Ask { eof: true, ..Ask::default() }).await?;
                }
            },
            _ = person.resized.recv(), if on_terminal => {
                attachment.ask(Ask { resize: Some(terminal::size()), ..Ask::default() }).await?;
            }
        }
    }
}
