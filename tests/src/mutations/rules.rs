//! The rules of the filter, one at a time.

use std::fmt;

use protocol::policy::ExecutionClass;
use shim::syscalls::evaluator::{Call, evaluate};
use shim::syscalls::generator::{Program, Protected, Target, generate};
use shim::syscalls::profile::{Action, Architecture, Clause, Entry, Op, Test, Value};

use super::ground::{self, WRAPPED};
use super::{Mutation, nothing_behind, untried};
use crate::probes::trial::{self, Asked};
use crate::probes::{Control, MARKED, Probe};
use crate::stage::weaken::{Gate, filter};
use crate::stage::{Cut, Profile};
use crate::table;

const CLASSES: [ExecutionClass; 3] = [ExecutionClass::Networked, ExecutionClass::Local, ExecutionClass::Readonly];
/// Landlock's ABI on the kernel that CI has. Of an older one the shim is told there, and its filter has more rules.
const ABI: u32 = 7;
/// What keeps foreign numbers out.
pub(super) const GATES: [Gate; 3] = [Gate::Architecture, Gate::X32, Gate::Unknown];
/// As on a stage: the supervisor is PID 1, its outsider 2.
const PROTECTED: Protected = Protected { supervisor: 1, supervisor_group: 1, shim: 4, floor: 4 };
/// The same where ids have begun again from below.
const BEGUN_AGAIN: Protected = Protected { floor: 0, ..PROTECTED };

/// A rule in words, and how to leave it out.
type Rule = (String, Cut);

/// Which of the shim's filters.
#[derive(Clone, Copy)]
struct Situation {
    class: ExecutionClass,
    abi: u32,
}

impl Situation {
    /// Where rules stand unless something else is said of them.
    const USUAL: Situation = Situation { class: ExecutionClass::Networked, abi: ABI };

    fn all() -> impl Iterator<Item = Situation> {
        (0..=ABI).rev().flat_map(|abi| CLASSES.map(|class| Situation { class, abi }))
    }

    fn is_old(self) -> bool {
        self.abi < ABI
    }

    fn rule(self, entry: &Entry) -> &'static [Clause] {
        entry.rule(self.class, self.abi)
    }

    /// The calls whose rule is another one here than in class `networked`, and than under the next ABI.
    fn calls(self) -> impl Iterator<Item = &'static Entry> {
        let own = move |entry: &&'static Entry| {
            let usual = Situation { class: ExecutionClass::Networked, ..self };
            let newer = Situation { abi: (self.abi + 1).min(ABI), ..self };
            (self.class == usual.class || self.rule(entry) != usual.rule(entry))
                && (!self.is_old() || self.rule(entry) != newer.rule(entry))
        };
        Architecture::NATIVE.calls().iter().filter(own)
    }

    /// The clauses of such a call by their places, without those that it has under the newest ABI, too.
    fn clauses(self, entry: &Entry) -> impl Iterator<Item = (u32, &'static Clause)> {
        let known: &'static [Clause] = if self.is_old() { entry.rule(self.class, ABI) } else { &[] };
        (0u32..).zip(self.rule(entry)).filter(move |(_, clause)| !known.contains(clause))
    }
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.class.name())?;
        if self.is_old() { write!(f, " below Landlock ABI {}", self.abi + 1) } else { Ok(()) }
    }
}

/// Every rule of the filter, each with those of these probes that can see that it is gone.
pub fn rules(probes: &[&'static Probe]) -> Vec<Mutation> {
    let watched = watch(probes);
    let gates = GATES.map(Cut::Gate).map(|cut| (Situation::USUAL, (cut.to_string(), cut)));
    let calls = Situation::all().flat_map(|situation| {
        let rules = situation.calls().flat_map(move |entry| of_call(situation, entry));
        rules.map(move |rule| (situation, rule))
    });
    let calls = calls.filter(|(situation, (_, cut))| !situation.is_old() || !untried::is_left(cut));
    gates.into_iter().chain(calls).map(|(situation, rule)| mutation(situation, rule, &watched)).collect()
}

/// How many rules of calls there are, counted in the lists and not among those that are made of them.
pub(super) fn in_the_lists() -> usize {
    let of_call = |(situation, entry): (Situation, &'static Entry)| {
        let refused = is_refused(situation.rule(entry));
        let parts = situation.clauses(entry).map(|(_, clause)| match clause.action {
            Action::Allow if refused => clause.tests.len(),
            Action::Errno(_) | Action::Kill if !refused => 1 + clause.tests.iter().flat_map(bits).count(),
            _ => 0,
        });
        usize::from(refused) + parts.sum::<usize>()
    };
    let calls = |situation: Situation| situation.calls().map(move |entry| (situation, entry));
    Situation::all().flat_map(calls).map(of_call).sum()
}

/// Whether that is what becomes of a call of which nothing else is said.
fn is_refused(rule: &[Clause]) -> bool {
    rule.last().is_some_and(|clause| clause.action != Action::Allow)
}

/// What refuses this call, one thing at a time: all of it, or where most is allowed each refusal, or where most is
/// refused each condition of what is allowed.
fn of_call(situation: Situation, entry: &'static Entry) -> Vec<Rule> {
    let refused = is_refused(situation.rule(entry));
    let whole = refused.then(|| ("refused".to_owned(), Cut::Call(entry.number)));
    let tested = situation.clauses(entry).filter(|(_, clause)| !clause.tests.is_empty());
    let parts = tested.flat_map(|(place, clause)| match clause.action {
        // Where the rest is refused anyway, a refusal says only by which errno.
        Action::Allow if refused => conditions(entry.number, place, clause),
        Action::Errno(_) | Action::Kill if !refused => refusals(entry.number, place, clause),
        _ => Vec::new(),
    });
    let named = |(what, cut): Rule| (format!("{situation} {}: {what}", entry.name), cut);
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
    let bits = clause.tests.iter().flat_map(bits);
    rules.extend(bits.map(|bit| (format!("refused with bit {bit:#x}"), Cut::Bit(number, place, bit))));
    rules
}

/// Those of a mask, where there are several.
fn bits(test: &Test) -> impl Iterator<Item = u32> {
    let mask = match test.value {
        Value::Number(mask) if test.op == Op::AnyBit && mask.count_ones() > 1 => mask,
        _ => 0,
    };
    (0..32).map(|bit| 1u32 << bit).filter(move |&bit| mask & u64::from(bit) != 0)
}

fn words(clause: &Clause) -> String {
    let word = |test: &Test| {
        let value =
            if let Value::Number(number) = test.value { format!("{number:#x}") } else { format!("{:?}", test.value) };
        format!("argument {} {:?} {value}", test.argument, test.op)
    };
    format!("if {}", clause.tests.iter().map(word).collect::<Vec<_>>().join(" and "))
}

fn mutation(situation: Situation, (what, cut): Rule, watched: &[Watched]) -> Mutation {
    let mut sees = who_sees(situation, &cut, PROTECTED, watched);
    if sees.is_empty() {
        sees = at_the_group(situation, &cut, watched);
    }
    let mut begun_again = false;
    if sees.is_empty() {
        // What is said of one pid says a rule of all older ones, too, unless ids have begun again.
        sees = who_sees(situation, &cut, BEGUN_AGAIN, watched);
        begun_again = !sees.is_empty();
    }
    if sees.is_empty() && nothing_behind::is_behind(&cut) {
        sees.push(&MARKED);
    }
    let grounds = match (situation.is_old(), begun_again) {
        (false, false) => None,
        (false, true) => Some(vec![WRAPPED]),
        (true, _) => Some(ground::older(situation.abi, begun_again)),
    };
    Mutation { what, cuts: vec![cut], sees, grounds }
}

/// Those whose calls the filter with this rule refuses, and the one without it does not.
fn who_sees(situation: Situation, cut: &Cut, protected: Protected, watched: &[Watched]) -> Vec<&'static Probe> {
    let Situation { class, abi } = situation;
    let whole = generate(Architecture::NATIVE, &Target { class, landlock_abi: abi, protected });
    let less = filter::without(&whole, cut).expect("the rule stands in the lists");
    let lets_through = |asked: &Asked| answer(&whole, asked) != Action::Allow && answer(&less, asked) == Action::Allow;
    let about = call(cut);
    let concerned = |(number, _): &&Asked| about.is_none_or(|about| about == *number);
    // Its calls have no number that the one who watches would know.
    let by_gate = |probe: &Probe| *cut == Cut::Gate(Gate::Architecture) && probe.name == "i386-entry";
    let sees = |(probe, asked): &&Watched| {
        probe.class == class && (by_gate(probe) || asked.iter().filter(concerned).any(lets_through))
    };
    let mut sees: Vec<&'static Probe> = watched.iter().filter(sees).map(|(probe, _)| *probe).collect();
    sees.sort_by_key(|probe| (probe.control == Control::Root, probe.name));
    sees
}

/// Those who aim at the shim's group, where the rule is of that. Watching does not show it: where nothing confines them, it is theirs.
fn at_the_group(situation: Situation, cut: &Cut, watched: &[Watched]) -> Vec<&'static Probe> {
    let Cut::Clause(number, place) = *cut else { return Vec::new() };
    let clause = situation.calls().find(|entry| entry.number == number);
    let clause = clause.and_then(|entry| situation.rule(entry).get(place as usize));
    if !clause.is_some_and(|clause| clause.tests.iter().any(|test| test.value == Value::MinusShim)) {
        return Vec::new();
    }
    let aims = |(probe, asked): &&Watched| {
        probe.name.ends_with("kill-group-of-shim") && asked.iter().any(|(asked, _)| *asked == number)
    };
    watched.iter().filter(aims).map(|(probe, _)| *probe).collect()
}

/// The call that a rule is about.
fn call(cut: &Cut) -> Option<u32> {
    match *cut {
        Cut::Call(number) | Cut::Clause(number, _) | Cut::Test(number, ..) | Cut::Bit(number, ..) => Some(number),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_the_lists_is_taken_away_once_or_said_to_be_untried() {
        assert_eq!(rules(&[]).len() + untried::number(), in_the_lists() + GATES.len());
    }
}
