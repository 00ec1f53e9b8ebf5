//! Which of the sequences that come are new: each is stored once, in order, and holes are explained by gaps.

use protocol::session::{Class, Data, Gap, encode};

use super::end::End;
use crate::store::Piece;

/// The records behind `next - 1`, and what is expected after them. An empty list: all were there before.
pub(crate) fn of_data(next: i64, data: Data) -> Result<(Vec<Piece>, i64), End> {
    let Some(first) = data.records.first().map(|entry| entry.seq) else {
        return Err(End::malformed("data without records"));
    };
    check(data.class, next, first)?;
    let mut pieces = Vec::new();
    let mut expected = first;
    for entry in data.records {
        if entry.seq != expected {
            return Err(out_of_order(data.class, expected, entry.seq));
        }
        expected = following(expected)?;
        if entry.seq >= next {
            let body = Box::<str>::from(entry.record).into_string();
            pieces.push(Piece { seq: entry.seq, last: entry.seq, gap: false, body });
        }
    }
    Ok((pieces, expected.max(next)))
}

/// The same for a gap; what is known of it already is cut off.
pub(crate) fn of_gap(next: i64, gap: Gap) -> Result<(Vec<Piece>, i64), End> {
    if gap.to < gap.from {
        return Err(End::malformed("a gap ends before it begins"));
    }
    check(gap.class, next, gap.from)?;
    if gap.to < next {
        return Ok((Vec::new(), next));
    }
    let gap = Gap { from: gap.from.max(next), ..gap };
    let piece = Piece { seq: gap.from, last: gap.to, gap: true, body: encode(&gap) };
    Ok((vec![piece], following(gap.to)?))
}

/// Whether `first` leaves no hole behind what is stored.
fn check(class: Class, next: i64, first: i64) -> Result<(), End> {
    if first < 1 || first > next { Err(out_of_order(class, next, first)) } else { Ok(()) }
}

fn following(seq: i64) -> Result<i64, End> {
    seq.checked_add(1).ok_or_else(|| End::malformed("there is no sequence behind that one"))
}

fn out_of_order(class: Class, expected: i64, came: i64) -> End {
    let reason = format!("{} {came} came where {expected} was expected", class.name());
    End::close(protocol::session::close::SEQUENCE, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::session::{Entry, close};
    use serde_json::value::RawValue;

    fn data(seqs: &[i64]) -> Data {
        let record = |seq| RawValue::from_string(format!("{{\"n\":{seq}}}")).expect("JSON");
        let records = seqs.iter().map(|&seq| Entry { seq, record: record(seq) }).collect();
        Data { class: Class::Logs, records }
    }

    fn gap(from: i64, to: i64) -> Gap {
        Gap { class: Class::Logs, from, to, bytes: 0, reason: "evicted".into() }
    }

    fn seqs(result: Result<(Vec<Piece>, i64), End>) -> (Vec<(i64, i64)>, i64) {
        let (pieces, next) = result.expect("taken");
        (pieces.iter().map(|piece| (piece.seq, piece.last)).collect(), next)
    }

    fn code(result: Result<(Vec<Piece>, i64), End>) -> u16 {
        match result {
            Err(End::Close(code, _)) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_there_before_is_left_out() {
        assert_eq!(seqs(of_data(1, data(&[1, 2]))), (vec![(1, 1), (2, 2)], 3));
        assert_eq!(seqs(of_data(3, data(&[1, 2]))), (vec![], 3));
        assert_eq!(seqs(of_data(3, data(&[2, 3, 4]))), (vec![(3, 3), (4, 4)], 5));
        assert_eq!(seqs(of_gap(5, gap(2, 4))), (vec![], 5));
        assert_eq!(seqs(of_gap(5, gap(3, 9))), (vec![(5, 9)], 10));
    }

    #[test]
    fn a_hole_without_a_gap_is_refused() {
        assert_eq!(code(of_data(1, data(&[2]))), close::SEQUENCE);
        assert_eq!(code(of_data(1, data(&[1, 3]))), close::SEQUENCE);
        assert_eq!(code(of_data(1, data(&[1, 1]))), close::SEQUENCE);
        assert_eq!(code(of_data(1, data(&[0, 1]))), close::SEQUENCE);
        assert_eq!(code(of_gap(1, gap(2, 3))), close::SEQUENCE);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(code(of_data(1, data(&[]))), close::MALFORMED);
        assert_eq!(code(of_gap(1, gap(1, 0))), close::MALFORMED);
        assert_eq!(code(of_gap(1, gap(1, i64::MAX))), close::MALFORMED);
        assert_eq!(code(of_data(i64::MAX, data(&[i64::MAX]))), close::MALFORMED);
    }
}
