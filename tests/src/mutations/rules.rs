//! The rules of the filter, one at a time.

use protocol::policy::ExecutionClass;
use shim::syscalls::evaluator::{Call, evaluate};
use shim::syscalls::generator::{Program, Protected, Target, generate};
use shim::syscalls::profile::{Action, Architecture, Clause, Entry, Op, Value};

use super::Mutation;
use super::ground::WRAPPED;
use super::nothing_behind;
use crate::probes::trial::{self, Asked};
use crate::probes::{Control, MARKED, Probe};
use crate::stage::weaken::{Gate, filter};
use crate::stage::{Cut, Profile};
use crate::table;

const CLASSES: [ExecutionClass; 3] = [ExecutionClass::Networked, ExecutionClass::Local, ExecutionClass::Readonly];
/// Landlock's ABI on the kernel that CI has.
const ABI: u32 = 7;
/// As on a stage: the supervisor is PID 1, its outsider 2.
const PROTECTED: Protected = Protected { supervisor: 1, supervisor_group: 1, shim: 4, floor: 4 };
/// The same where ids have begun again from below.
const BEGUN_AGAIN: Protected = Protected { floor: 0, ..PROTECTED };

/// A rule in words, and how to leave it out.
type Rule = (String, Cut);

/// Every rule of the filter, each with those of these probes that can see that it is gone.
pub fn rules(probes: &[&'static Probe]) -> Vec<Mutation> {
    let watched = watch(probes);
    let gates = [Gate::Architecture, Gate::X32, Gate::Unknown].map(Cut::Gate);
    let gates = gates.into_iter().map(|cut| (ExecutionClass::Networked, (cut.to_string(), cut)));
    let rules = CLASSES.into_iter().flat_map(|class| {
        let own = move |entry: &&Entry| {
            class == ExecutionClass::Networked || entry.rule(class, ABI) != entry.rule(ExecutionClass::Networked, ABI)
        };
        let calls = Architecture::NATIVE.calls().iter().filter(own);
        calls.flat_map(move |entry| of_call(class, entry)).map(move |rule| (class, rule))
    });
    gates.chain(rules).map(|(class, rule)| mutation(class, rule, &watched)).collect()
}

/// What refuses this call, one thing at a time: all of it, or where most is allowed each refusal, or where most is
/// refused each condition of what is allowed.
fn of_call(class: ExecutionClass, entry: &'static Entry) -> Vec<Rule> {
    let rule = entry.rule(class, ABI);
    let refused = rule.last().is_some_and(|clause| clause.action != Action::Allow);
    let whole = refused.then(|| ("refused".to_owned(), Cut::Call(entry.number)));
    let tested = (0u32..).zip(rule).filter(|(_, clause)| !clause.tests.is_empty());
    let parts = tested.flat_map(|(place, clause)| match clause.action {
        // Where the rest is refused anyway, a refusal says only by which errno.
        Action::Allow if refused => conditions(entry.number, place, clause),
        Action::Errno(_) | Action::Kill if !refused => refusals(entry.number, place, clause),
        _ => Vec::new(),
    });
    let named = |(what, cut): Rule| (format!("{} {}: {what}", class.name(), entry.name), cut);
    whole.into_iter().chain(parts).map(named).collect()
}

fn conditions(number: u32, place: u32, clause: &Clause) -> Vec<Rule> {
    let rule = |(index, _)| {
        (format!("allowed only {}, which condition {index} says", words(clause)), Cut::Test(number, place, index))
    };
    (0u32..).zip(clause.tests).map(rule).collect()
}

/// The refusal, and each bit of a mask that it refuses by.
fn refusals(number: u32, place: u32, clause: &Clause) -> Vec<Rule> {
    let mut rules = vec![(format!("refused {}", words(clause)), Cut::Clause(number, place))];
    for test in clause.tests.iter().filter(|test| test.op == Op::AnyBit) {
        let Value::Number(mask) = test.value else { continue };
        let bits = (0..32).map(|bit| 1u32 << bit).filter(|&bit| mask & u64::from(bit) != 0);
        if mask.count_ones() > 1 {
            rules.extend(bits.map(|bit| (format!("refused with bit {bit:#x}"), Cut::Bit(number, place, bit))));
        }
    }
    rules
}

fn words(clause: &Clause) -> String {
    let word = |test: &shim::syscalls::profile::Test| {
        let value =
            if let Value::Number(number) = test.value { format!("{number:#x}") } else { format!("{:?}", test.value) };
        format!("argument {} {:?} {value}", test.argument, test.op)
    };
    format!("if {}", clause.tests.iter().map(word).collect::<Vec<_>>().join(" and "))
}

fn mutation(class: ExecutionClass, (what, cut): Rule, watched: &[Watched]) -> Mutation {
    let (mut sees, mut grounds) = (who_sees(class, &cut, PROTECTED, watched), None);
    if sees.is_empty() {
        // What is said of one pid says a rule of all older ones, too, unless ids have begun again.
        sees = who_sees(class, &cut, BEGUN_AGAIN, watched);
        grounds = (!sees.is_empty()).then(|| vec![WRAPPED]);
    }
    if sees.is_empty() && nothing_behind::is_behind(&cut) {
        sees.push(&MARKED);
    }
    Mutation { what, cuts: vec![cut], sees, grounds }
}

/// Those whose calls the filter with this rule refuses, and the one without it does not.
fn who_sees(class: ExecutionClass, cut: &Cut, protected: Protected, watched: &[Watched]) -> Vec<&'static Probe> {
    let whole = generate(Architecture::NATIVE, &Target { class, landlock_abi: ABI, protected });
    let less = filter::without(&whole, cut).expect("the rule stands in the lists");
    let lets_through = |asked: &Asked| answer(&whole, asked) != Action::Allow && answer(&less, asked) == Action::Allow;
    // Its calls have no number that the one who watches would know.
    let by_gate = |probe: &Probe| *cut == Cut::Gate(Gate::Architecture) && probe.name == "i386-entry";
    let sees = |(probe, asked): &&Watched| probe.class == class && (by_gate(probe) || asked.iter().any(lets_through));
    let mut sees: Vec<&'static Probe> = watched.iter().filter(sees).map(|(probe, _)| *probe).collect();
    sees.sort_by_key(|probe| (probe.control == Control::Root, probe.name));
    sees
}

fn answer(program: &Program, (number, arguments): &Asked) -> Action {
    let call = Call { architecture: Architecture::NATIVE.audit(), number: *number, arguments: *arguments };
    evaluate(program, &call).expect("a program of the shim's").action
}

/// What a probe asks of the kernel where nothing confines it.
type Watched = (&'static Probe, Vec<Asked>);

fn watch(probes: &[&'static Probe]) -> Vec<Watched> {
    let found = std::sync::Mutex::new(Vec::new());
    table::each("watching", probes, |&probe| {
        let profile = match probe.control {
            Control::User => Profile::User,
            Control::Root => Profile::Plain,
            Control::Nobody(_) => return None,
        };
        let asked = trial::asks(probe, profile);
        found.lock().expect("no panic holds it").push((probe, asked));
        None
    });
    found.into_inner().expect("no panic held it")
}
