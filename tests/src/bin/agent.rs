//! `agent VERB [OPERANDS]`: an agent that does one thing that a shell cannot.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use tests::crowd;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (verb, operands) = arguments.split_first().map_or(("", &[][..]), |(v, o)| (v.as_str(), o));
    let number = || operands.first().and_then(|o| o.parse().ok()).unwrap_or(0usize);
    let done = match verb {
        "orphans" => crowd::orphans(number()).map_err(Into::into),
        "tree" => crowd::tree(number()).map_err(Into::into),
        "bomb" => crowd::bomb().map_err(Into::into),
        "crowd" => crowd::crowd(number()).map_err(Into::into),
        "stamp" => stamp(),
        "flood" => flood(number()),
        "notify" => notify(operands),
        "listen" => listen(operands),
        "descriptors" => descriptors(),
        "copy" => copy(),
        _ => Err(format!("agent: unknown verb {verb:?}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("agent {verb}: {problem}");
            ExitCode::from(2)
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

/// The same bytes, of every value, to standard output and standard error at once.
fn flood(bytes: usize) -> Done {
    let content = tests::output::noise(bytes);
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| std::io::stderr().write_all(&content));
        std::io::stdout().write_all(&content)?;
        errors.join().map_err(|_| std::io::Error::other("the writer panicked"))?
    })?;
    Ok(())
}

/// Each operand is one datagram to `NOTIFY_SOCKET`; `wait` waits for a line on standard input, `stay` for ever.
fn notify(operands: &[String]) -> Done {
    let path = std::env::var("NOTIFY_SOCKET")?;
    let socket = UnixDatagram::unbound()?;
    for operand in operands {
        match operand.as_str() {
            "stay" => crowd::stay(),
            "wait" => {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line)?;
            }
            "barrier" => barrier(&socket, &path)?,
            state => {
                socket.send_to(state.as_bytes(), &path)?;
                println!("sent {state}");
            }
        }
    }
    Ok(())
}

/// `sd_notify_barrier(3)`: send one end of a pipe and wait until the receiver has closed it.
fn barrier(socket: &UnixDatagram, path: &str) -> Done {
    let (reader, writer) = nix::unistd::pipe()?;
    let content = [std::io::IoSlice::new(b"BARRIER=1")];
    let rights = [writer.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg(socket.as_raw_fd(), &content, &message, MsgFlags::empty(), Some(&UnixAddr::new(path)?))?;
    drop(writer);
    std::fs::File::from(reader).read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Answer HTTP on 127.0.0.1 at this port with this status, for ever.
fn listen(operands: &[String]) -> Done {
    let [port, status] = operands else { return Err("listen PORT STATUS".into()) };
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?))?;
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut head = [0u8; 1024];
        let _ = stream.read(&mut head)?;
        let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    Ok(())
}

/// Print every open descriptor's number.
fn descriptors() -> Done {
    let open: Vec<i32> = (0..4096).filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect();
    println!("{open:?}");
    Ok(())
}

/// When this program got to its first line, on the clock that all processes share; then stay.
fn stamp() -> Done {
    println!("{}", tests::bench::now_ns());
    crowd::stay()
}

/// Standard input to standard output.
fn copy() -> Done {
    std::io::copy(&mut std::io::stdin(), &mut std::io::stdout())?;
    Ok(())
}
