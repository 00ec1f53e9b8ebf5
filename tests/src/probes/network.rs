//! The supervisor's port, and the sockets that no agent needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use protocol::guarantee::Guarantee::{
    AbstractSocketsClosed, NoInet, SupervisorNotSignalled, SyscallsFiltered, TcpPorts,
};
use protocol::policy::ExecutionClass::{Local, Readonly};

use super::{Outcome, Probe, call, judge, probe, reaches};
use crate::kernel::{self, address};
use crate::scene::{ABSTRACT, PORT};

const HIGH: u64 = 1 << 32;
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// An unconfined socket call says the same as the filter does, so only a kernel that has the family proves anything.
const NOT_BUILT: &str = "the kernel has no such protocol";

pub(super) const PROBES: &[Probe] = &[
    // the port belongs to the supervisor as its memory does; no guarantee of its own
    probe("port-plain", SupervisorNotSignalled, |_| take_port(ANY6, Sharing::None)).free_port(),
    probe("port-plain-v4", SupervisorNotSignalled, |_| take_port(ANY4, Sharing::None)).free_port(),
    probe("port-reuseaddr", SupervisorNotSignalled, |_| take_port(ANY6, Sharing::Address)).free_port(),
    probe("port-specific-address", SupervisorNotSignalled, |_| {
        take_port(IpAddr::V4(Ipv4Addr::LOCALHOST), Sharing::Address)
    })
    .free_port(),
    probe("port-specific-address-v6", SupervisorNotSignalled, |_| {
        take_port(IpAddr::V6(Ipv6Addr::LOCALHOST), Sharing::Address)
    })
    .free_port(),
    probe("port-reuseport", SupervisorNotSignalled, |_| take_port(ANY6, Sharing::Port)),
    probe("socket-raw", SyscallsFiltered, |_| open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP)).root(),
    probe("socket-raw-icmp", SyscallsFiltered, |_| open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)).root(),
    probe("socket-raw-v6", SyscallsFiltered, |_| open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)).root(),
    probe("socket-raw-udp", SyscallsFiltered, |_| open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP)).root(),
    probe("socket-raw-v6-tcp", SyscallsFiltered, |_| open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_TCP)).root(),
    probe("socket-raw-v6-udp", SyscallsFiltered, |_| open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_UDP)).root(),
    probe("socket-sequenced", SyscallsFiltered, |_| sequenced(libc::AF_INET)),
    probe("socket-sequenced-v6", SyscallsFiltered, |_| sequenced(libc::AF_INET6)),
    probe("socket-mptcp-v6", SyscallsFiltered, |_| open(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)),
    probe("socket-udplite-v6", SyscallsFiltered, |_| open(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)),
    probe("socket-netlink-as-tcp", SyscallsFiltered, |_| {
        // refused by the kernel for its type, so it has come as far as netlink
        let made = raw_socket(libc::AF_NETLINK, libc::SOCK_STREAM, libc::IPPROTO_TCP);
        reaches(made, &[Errno::ESOCKTNOSUPPORT])
    }),
    probe("socket-netlink-as-udp", SyscallsFiltered, |_| {
        let made = raw_socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::IPPROTO_UDP);
        reaches(made, &[Errno::EPROTONOSUPPORT])
    }),
    probe("socket-packet", SyscallsFiltered, |_| open(libc::AF_PACKET, libc::SOCK_RAW, 0x0300)).root(),
    probe("socket-packet-high-bits", SyscallsFiltered, |_| {
        call(libc::SYS_socket, &[HIGH | libc::AF_PACKET as u64, HIGH | libc::SOCK_DGRAM as u64, 0])
    })
    .root(),
    probe("socket-netlink-audit", SyscallsFiltered, |_| netlink(libc::NETLINK_AUDIT)),
    probe("socket-netlink-uevent", SyscallsFiltered, |_| netlink(libc::NETLINK_KOBJECT_UEVENT)),
    probe("socket-netlink-netfilter", SyscallsFiltered, |_| netlink(libc::NETLINK_NETFILTER)),
    probe("socket-netlink-generic", SyscallsFiltered, |_| netlink(libc::NETLINK_GENERIC)),
    probe("socket-netlink-diagnostics", SyscallsFiltered, |_| netlink(libc::NETLINK_SOCK_DIAG)),
    probe("socket-netlink-xfrm", SyscallsFiltered, |_| netlink(libc::NETLINK_XFRM)),
    probe("socket-vsock", SyscallsFiltered, |_| open(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    probe("socket-algorithm", SyscallsFiltered, |_| open(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)).nobody(NOT_BUILT),
    probe("socket-xdp", SyscallsFiltered, |_| open(libc::AF_XDP, libc::SOCK_RAW, 0)).root(),
    probe("socket-key", SyscallsFiltered, |_| open(libc::AF_KEY, libc::SOCK_RAW, 2)).nobody(NOT_BUILT),
    probe("socket-bluetooth", SyscallsFiltered, |_| open(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)).nobody(NOT_BUILT),
    probe("socket-can", SyscallsFiltered, |_| open(libc::AF_CAN, libc::SOCK_RAW, 1)).nobody(NOT_BUILT),
    probe("socket-tipc", SyscallsFiltered, |_| open(libc::AF_TIPC, libc::SOCK_SEQPACKET, 0)).nobody(NOT_BUILT),
    probe("socket-mptcp", SyscallsFiltered, |_| open(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)),
    probe("socket-sctp", SyscallsFiltered, |_| open(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP))
        .nobody(NOT_BUILT),
    probe("socket-udplite", SyscallsFiltered, |_| open(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)),
    probe("fast-open-sendto", SyscallsFiltered, |_| fast_open(libc::MSG_FASTOPEN as u64)),
    probe("fast-open-sendto-high-bits", SyscallsFiltered, |_| fast_open(HIGH | libc::MSG_FASTOPEN as u64)),
    probe("tun-device", SyscallsFiltered, |_| {
        judge(std::fs::File::options().read(true).write(true).open("/dev/net/tun"))
    })
    .root(),
    probe("abstract-socket-of-outsider", AbstractSocketsClosed, |_| {
        judge(
            std::os::unix::net::SocketAddr::from_abstract_name(ABSTRACT)
                .and_then(|name| UnixStream::connect_addr(&name)),
        )
    }),
    probe("connect-unlisted-port", TcpPorts, |_| judge(std::net::TcpStream::connect(("::1", PORT))))
        .set(&[("agent-connect-ports", "9")]),
    probe("local-tcp", NoInet, |_| open(libc::AF_INET, libc::SOCK_STREAM, 0)).class(Local),
    probe("local-tcp-v6", NoInet, |_| open(libc::AF_INET6, libc::SOCK_STREAM, 0)).class(Local),
    probe("readonly-tcp", NoInet, |_| open(libc::AF_INET, libc::SOCK_STREAM, 0)).class(Readonly),
    probe("readonly-udp-v6", NoInet, |_| open(libc::AF_INET6, libc::SOCK_DGRAM, 0)).class(Readonly),
    probe("local-udp", NoInet, |_| open(libc::AF_INET, libc::SOCK_DGRAM, 0)).class(Local),
    probe("local-udp-v6", NoInet, |_| open(libc::AF_INET6, libc::SOCK_DGRAM, 0)).class(Local),
    probe("local-tcp-high-bits", NoInet, |_| {
        call(libc::SYS_socket, &[HIGH | libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0])
    })
    .class(Local),
    probe("local-netlink-route", NoInet, |_| netlink(libc::NETLINK_ROUTE)).class(Local),
    probe("local-connect-supervisor", NoInet, |_| judge(std::net::TcpStream::connect(("::1", PORT)))).class(Local),
];

#[derive(Clone, Copy)]
enum Sharing {
    None,
    Address,
    Port,
}

fn take_port(ip: IpAddr, sharing: Sharing) -> Outcome {
    let attempt = || -> nix::Result<OwnedFd> {
        let family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        match sharing {
            Sharing::None => {}
            Sharing::Address => setsockopt(&socket, sockopt::ReuseAddr, &true)?,
            Sharing::Port => setsockopt(&socket, sockopt::ReusePort, &true)?,
        }
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(ip, PORT)))?;
        listen(&socket, Backlog::new(8)?)?;
        Ok(socket)
    };
    judge(attempt())
}

fn raw_socket(family: i32, kind: i32, protocol: i32) -> nix::Result<i64> {
    kernel::call(libc::SYS_socket, &[family as u64, kind as u64, protocol as u64])
}

fn open(family: i32, kind: i32, protocol: i32) -> Outcome {
    judge(raw_socket(family, kind, protocol))
}

/// Neither TCP nor UDP: what has no other protocol built says that there is no such type.
fn sequenced(family: i32) -> Outcome {
    reaches(raw_socket(family, libc::SOCK_SEQPACKET, 0), &[Errno::ESOCKTNOSUPPORT])
}

fn netlink(protocol: i32) -> Outcome {
    open(libc::AF_NETLINK, libc::SOCK_RAW, protocol)
}

/// A connection made by `sendto`, which no filter on `connect` sees.
fn fast_open(flags: u64) -> Outcome {
    let fd = match raw_socket(libc::AF_INET, libc::SOCK_STREAM, 0) {
        Ok(fd) => fd as u64,
        Err(error) => return Outcome::Denied(error.to_string()),
    };
    // struct sockaddr_in of 127.0.0.1:9, where nobody listens: refused means that it went out
    let mut to = [0u8; 16];
    to[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    to[2..4].copy_from_slice(&9u16.to_be_bytes());
    to[4..8].copy_from_slice(&[127, 0, 0, 1]);
    let sent = kernel::call(libc::SYS_sendto, &[fd, address("x"), 1, flags, address(&to), 16]);
    reaches(sent, &[Errno::ECONNREFUSED, Errno::EINPROGRESS])
}
