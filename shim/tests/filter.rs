//! The filter says what the lists say: every number, both architectures, every class and ABI, against a second reading
//! of the lists that shares no code with the build.

mod lists;

use lists::{Lists, Situation};
use proptest::prelude::*;
use protocol::policy::ExecutionClass;
use shim::syscalls::evaluator::{Call, Verdict, evaluate};
use shim::syscalls::generator::{LONGEST, Program, Protected, Target, generate};
use shim::syscalls::profile::{Action, Architecture};

const CLASSES: [(ExecutionClass, &str); 3] = [
    (ExecutionClass::Local, "local"),
    (ExecutionClass::Readonly, "readonly"),
    (ExecutionClass::Networked, "networked"),
];
const ABIS: [u32; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 9];
const PROTECTED: Protected = Protected { supervisor: 1, supervisor_group: 1, shim: 4242, floor: 4242 };

fn program(architecture: Architecture, class: ExecutionClass, landlock_abi: u32) -> Program {
    generate(architecture, &Target { class, landlock_abi, protected: PROTECTED })
}

fn ask(program: &Program, architecture: Architecture, number: u32, arguments: [u64; 6]) -> Verdict {
    let call = Call { architecture: architecture.audit(), number, arguments };
    evaluate(program, &call).expect("the generator writes only what the evaluator knows")
}

fn situations() -> impl Iterator<Item = (Architecture, ExecutionClass, Situation<'static>)> {
    Architecture::ALL.into_iter().flat_map(|architecture| {
        CLASSES.into_iter().flat_map(move |(class, name)| {
            ABIS.map(|abi| (architecture, class, Situation { architecture: architecture.name(), class: name, abi }))
        })
    })
}

/// Every known number and its neighbours, x32's range, and the edges of what a number can be.
fn numbers() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..=1024).chain(0x4000_0000..=0x4000_0400).collect();
    numbers.extend([0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]);
    numbers
}

/// Values at which an argument test can change its mind.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    8,
    10,
    16,
    17,
    262,
    0x201,
    0x5412,
    0x0800_0011,
    0x2000_0000,
    4241,
    4242,
    4243,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX,
];

#[test]
fn every_number_is_answered_as_listed_in_every_situation() {
    let lists = Lists::read();
    for (architecture, class, situation) in situations() {
        let program = program(architecture, class, situation.abi);
        for number in numbers() {
            for edge in EDGES {
                let arguments = [edge; 6];
                let wanted = lists.answer(&situation, number, &arguments, &PROTECTED);
                let found = ask(&program, architecture, number, arguments).action;
                assert_eq!(found, wanted, "{situation:?} number {number} arguments {edge:#x}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_call_is_answered_as_listed(
        number in prop_oneof![0u32..512, any::<u32>()],
        arguments in prop::array::uniform6(prop_oneof![prop::sample::select(&EDGES[..]), any::<u64>(), 0u64..300]),
        which in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = situations().collect();
        let (architecture, class, situation) = &all[which.index(all.len())];
        let program = program(*architecture, *class, situation.abi);
        let wanted = Lists::shared().answer(situation, number, &arguments, &PROTECTED);
        prop_assert_eq!(ask(&program, *architecture, number, arguments).action, wanted);
    }

    /// CVE-2019-10063: where the kernel reads 32 bits, the other 32 must not matter.
    #[test]
    fn high_bits_that_the_kernel_ignores_change_no_answer(
        high in any::<u32>(),
        value in prop_oneof![prop::sample::select(&EDGES[..]), 0u64..0x6000],
        call in prop::sample::select(&["ioctl", "socket", "kill", "tkill", "setpriority", "clone", "personality"][..]),
    ) {
        for (architecture, class, situation) in situations() {
            let program = program(architecture, class, situation.abi);
            let Some(number) = Lists::shared().number(architecture.name(), call) else { continue };
            let plain = [value & 0xffff_ffff; 6];
            let dressed = plain.map(|argument| argument | u64::from(high) << 32);
            prop_assert_eq!(
                ask(&program, architecture, number, plain).action,
                ask(&program, architecture, number, dressed).action
            );
        }
    }
}

#[test]
fn another_architecture_ends_the_process() {
    const I386: u32 = 0x4000_0003;
    for (architecture, class, situation) in situations() {
        let program = program(architecture, class, situation.abi);
        let others = Architecture::ALL.map(Architecture::audit).into_iter().chain([I386, 0]);
        for other in others.filter(|&other| other != architecture.audit()) {
            let call = Call { architecture: other, number: 0, arguments: [0; 6] };
            assert_eq!(evaluate(&program, &call).map(|verdict| verdict.action), Ok(Action::Kill));
        }
    }
}

#[test]
fn x32_numbers_are_answered_as_by_a_kernel_without_x32() {
    let program = program(Architecture::X86_64, ExecutionClass::Networked, 7);
    for number in [0x4000_0000, 0x4000_0001, 0x4000_0000 + 59, 0x4000_0200] {
        let action = ask(&program, Architecture::X86_64, number, [0; 6]).action;
        assert_eq!(action, Action::Errno(libc::ENOSYS as u16));
    }
}

#[test]
fn programs_are_short_and_few_instructions_answer_a_call() {
    for (architecture, class, situation) in situations() {
        let program = program(architecture, class, situation.abi);
        let plain = |number| ask(&program, architecture, number, [0; 6]).steps;
        let read = Lists::shared().number(architecture.name(), "read").expect("every kernel has it");
        let deepest = (0..=1024).map(plain).max().unwrap_or_default();
        if [0, 7].contains(&situation.abi) {
            let length = program.len();
            println!("filter {situation:?}: {length} instructions, read takes {}, deepest {deepest}", plain(read));
        }
        assert!(program.len() < LONGEST, "{situation:?}");
        assert!(deepest <= 64, "{situation:?}: {deepest}");
    }
}

#[test]
fn ids_that_began_again_from_below_do_not_close_the_programs_own() {
    assert_eq!(Protected::new(1, 1, 50, 51).floor, 50);
    assert_eq!(Protected::new(1, 1, 4_194_303, 300).floor, 299);
}

#[test]
fn the_numbers_are_those_of_the_libc() {
    for (name, number) in [
        ("read", libc::SYS_read),
        ("socket", libc::SYS_socket),
        ("ioctl", libc::SYS_ioctl),
        ("ptrace", libc::SYS_ptrace),
        ("prlimit64", libc::SYS_prlimit64),
        ("kill", libc::SYS_kill),
        ("setpriority", libc::SYS_setpriority),
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("unshare", libc::SYS_unshare),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
        ("openat2", libc::SYS_openat2),
        ("mount", libc::SYS_mount),
        ("bpf", libc::SYS_bpf),
        ("keyctl", libc::SYS_keyctl),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("fchmodat", libc::SYS_fchmodat),
        ("utimensat", libc::SYS_utimensat),
        ("fsetxattr", libc::SYS_fsetxattr),
        ("sendmmsg", libc::SYS_sendmmsg),
    ] {
        let listed = Lists::shared().number(Architecture::NATIVE.name(), name);
        assert_eq!(listed.map(i64::from), Some(number), "{name}");
    }
}

/// Bless a change on purpose with `BLESS=1 cargo test -p shim --test filter`.
#[test]
fn the_golden_files_change_only_on_purpose() {
    for architecture in Architecture::ALL {
        for (class, name) in CLASSES {
            for abi in [2, 7] {
                let path = format!(
                    "{}/profiles/golden/{}-{name}-abi{abi}.txt",
                    env!("CARGO_MANIFEST_DIR"),
                    architecture.name()
                );
                let text = golden(architecture, class, abi);
                if std::env::var_os("BLESS").is_some() {
                    std::fs::write(&path, &text).expect("the golden file is writable");
                }
                let known = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(known == text, "{path} differs from what the filter answers; is that meant?");
            }
        }
    }
}

/// Every number that is not ENOSYS: its answer with all arguments 0, and how many of some arguments change it.
fn golden(architecture: Architecture, class: ExecutionClass, abi: u32) -> String {
    let program = program(architecture, class, abi);
    let mut text = String::from("# number name: answer to all-zero arguments, then those of the edges that differ\n");
    for number in 0..=1024 {
        let answer = |edge| ask(&program, architecture, number, [edge; 6]).action;
        let zero = answer(0);
        let others: Vec<String> = EDGES
            .into_iter()
            .filter(|&edge| answer(edge) != zero)
            .map(|edge| format!(" {edge:#x}={}", show(answer(edge))))
            .collect();
        let name = Lists::shared().name(architecture.name(), number).unwrap_or("-");
        if name != "-" || zero != Action::Errno(libc::ENOSYS as u16) {
            text += &format!("{number} {name}: {}{}\n", show(zero), others.concat());
        }
    }
    text
}

fn show(action: Action) -> String {
    match action {
        Action::Allow => "allow".to_owned(),
        Action::Kill => "kill".to_owned(),
        Action::Errno(errno) => format!("{:?}", nix::errno::Errno::from_raw(errno.into())),
    }
}
