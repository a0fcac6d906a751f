use rstest::rstest;

use super::*;
use crate::sec_agree::Ends;
use gm_esp::Suite;

const MIN: u64 = 60_000;

fn key(impi: &str) -> ContactKey {
    ContactKey {
        impi: impi.into(),
        instance: "".into(),
    }
}

fn params(n: u16) -> SetParams {
    SetParams {
        ue: [192, 0, 2, 1].into(),
        pcscf: [203, 0, 113, 1].into(),
        ue_ends: Ends {
            spi_c: 1000 + u32::from(n) * 2,
            spi_s: 1001 + u32::from(n) * 2,
            port_c: 31000 + n,
            port_s: 32000,
        },
        pcscf_ends: Ends {
            spi_c: 5000,
            spi_s: 5001,
            port_c: 5064 + n,
            port_s: 5063,
        },
        suite: Suite::NullAesGcm,
        tunnel: None,
        replay_window: 64,
    }
}

fn table() -> Table {
    Table::new(Timers::default(), 10, 3, 2)
}

fn add(table: &mut Table, n: u16, over: Option<SetToken>, now: u64) -> SetToken {
    let token = SetToken(u64::from(n));
    let mut set = SaSet::new(token, params(n), now + Timers::default().registration);
    set.over = over;
    table.add(&key("u"), &"path-u".into(), set).expect("room");
    token
}

/// The set is installed, and then its registration succeeds.
fn confirm(table: &mut Table, token: SetToken, now: u64, granted: u64) {
    table.activate(token);
    table.confirm(token, now, granted);
}

/// Registers in clear and then again over the first set, at time 0.
fn two_sets(table: &mut Table) -> (SetToken, SetToken) {
    let first = add(table, 1, None, 0);
    confirm(table, first, 0, 30 * MIN);
    let second = add(table, 2, Some(first), 0);
    confirm(table, second, 0, 10 * MIN);
    (first, second)
}

#[test]
fn unfinished_registrations_end_in_time() {
    let mut table = table();
    let token = add(&mut table, 1, None, 0);
    assert_eq!(table.next_timeout(), Some(4 * MIN));
    table.handle_timeout(4 * MIN - 1);
    assert!(table.take_changes().is_empty());
    table.handle_timeout(4 * MIN);
    assert_eq!(
        table.take_changes(),
        [Change::Remove(token, RemoveReason::Unfinished)]
    );
    assert!(table.is_empty() && table.next_timeout().is_none());
}

#[test]
fn a_new_challenge_cancels_the_unfinished_attempt_only() {
    let mut table = table();
    let first = add(&mut table, 1, None, 0);
    confirm(&mut table, first, 0, MIN);
    let second = add(&mut table, 2, None, 0);
    table.take_changes();
    let third = add(&mut table, 3, None, 0);
    assert_eq!(
        table.take_changes(),
        [Change::Remove(second, RemoveReason::Aborted)]
    );
    assert!(table.set(first).is_some() && table.set(third).is_some());
}

#[test]
fn after_a_clear_sm1_all_old_sets_go() {
    let mut table = table();
    let first = add(&mut table, 1, None, 0);
    confirm(&mut table, first, 0, 30 * MIN);
    let second = add(&mut table, 2, None, 0);
    table.take_changes();
    confirm(&mut table, second, 0, 30 * MIN);
    let want = [
        Change::Activate(second),
        Change::Retire(first),
        Change::Remove(first, RemoveReason::Replaced),
    ];
    assert_eq!(table.take_changes(), want);
}

#[test]
fn after_a_protected_sm1_the_old_set_serves_until_the_new_one_is_heard() {
    let mut table = table();
    let (first, second) = two_sets(&mut table);
    let current = |t: &Table| t.contact(1).and_then(|c| c.current);
    assert_eq!(current(&table), Some(first));
    // The longer life of the old ones is kept.
    assert_eq!(table.set(second).map(|s| s.deadline), Some(30 * MIN));
    table.take_changes();
    table.heard(first, MIN);
    assert!(table.take_changes().is_empty());
    table.heard(second, MIN);
    assert_eq!(
        table.take_changes(),
        [Change::Switched {
            from: first,
            to: second
        }]
    );
    assert_eq!(current(&table), Some(second));
    table.handle_timeout(MIN + 32_000);
    assert_eq!(
        table.take_changes(),
        [
            Change::Retire(first),
            Change::Remove(first, RemoveReason::Replaced)
        ]
    );
}

#[test]
fn short_before_its_end_the_old_set_gives_way_unheard() {
    let mut table = table();
    let (first, second) = two_sets(&mut table);
    table.take_changes();
    table.handle_timeout(30 * MIN - 10_000);
    assert_eq!(
        table.take_changes(),
        [Change::Switched {
            from: first,
            to: second
        }]
    );
}

#[test]
fn a_repeated_sm12_changes_nothing() {
    let mut table = table();
    let (_, second) = two_sets(&mut table);
    table.take_changes();
    confirm(&mut table, second, 5 * MIN, 60 * MIN);
    assert!(table.take_changes().is_empty());
    assert_eq!(table.set(second).map(|s| s.deadline), Some(30 * MIN));
}

#[test]
fn lives_never_shrink() {
    let mut table = table();
    let first = add(&mut table, 1, None, 0);
    confirm(&mut table, first, 0, 30 * MIN);
    assert_eq!(table.refresh(1, 0, MIN), Some(first));
    assert_eq!(table.set(first).map(|s| s.deadline), Some(30 * MIN));
    table.refresh(1, 20 * MIN, 30 * MIN);
    assert_eq!(table.next_timeout(), Some(50 * MIN));
    table.take_changes();
    table.handle_timeout(50 * MIN);
    assert_eq!(
        table.take_changes(),
        [
            Change::Retire(first),
            Change::Remove(first, RemoveReason::Expired)
        ]
    );
}

#[test]
fn the_last_identity_takes_the_sets_along_after_a_while() {
    let mut table = table();
    let first = add(&mut table, 1, None, 0);
    confirm(&mut table, first, 0, 30 * MIN);
    table.registered(1, &"sip:a@h".into(), vec![]);
    table.registered(1, &"sip:b@h".into(), vec![]);
    assert!(!table.deregister(1, "sip:a@h", 0));
    assert!(table.deregister(1, "sip:b@h", 0));
    table.take_changes();
    assert_eq!(table.next_timeout(), Some(4_000));
    table.handle_timeout(4_000);
    assert_eq!(
        table.take_changes(),
        [
            Change::Retire(first),
            Change::Remove(first, RemoveReason::Deregistered)
        ]
    );
    assert!(table.is_empty());
}

#[test]
fn six_sas_per_direction_and_no_more() {
    let mut table = table();
    let (_, second) = two_sets(&mut table);
    // Not heard, challenged again over the second one: three sets are there.
    let third = add(&mut table, 3, Some(second), 0);
    let (_, sets) = table.len();
    assert_eq!(sets, 3);
    confirm(&mut table, third, 0, MIN);
    assert_eq!(
        table.contact(1).map(|c| c.sets.clone()),
        Some(vec![second, third])
    );
}

#[rstest]
#[case::live_client_port("u", 1, 40, 32001, true)]
#[case::same_user_new_client_port("u", 5, 40, 32000, false)]
#[case::other_user_same_server_port("v", 5, 40, 32000, true)]
#[case::other_user_other_ports("v", 5, 40, 32001, false)]
#[case::spi_of_another("v", 5, 1, 32001, true)]
fn collisions(
    #[case] impi: &str,
    #[case] port: u16,
    #[case] spi: u32,
    #[case] port_s: u16,
    #[case] collides: bool,
) {
    let mut table = table();
    let first = add(&mut table, 1, None, 0);
    confirm(&mut table, first, 0, MIN);
    let ends = Ends {
        spi_c: 1000 + spi * 2,
        spi_s: 9,
        port_c: 31000 + port,
        port_s,
    };
    assert_eq!(
        table.collides(&key(impi), [192, 0, 2, 1].into(), &ends, 5063),
        collides
    );
    assert!(
        !table.collides(&key(impi), [192, 0, 2, 77].into(), &ends, 5063),
        "another address never collides"
    );
}

#[test]
fn an_unfinished_set_gives_its_ports_to_the_same_contact_only() {
    let mut table = table();
    add(&mut table, 1, None, 0);
    let ends = params(1).ue_ends;
    assert!(!table.collides(&key("u"), params(1).ue, &ends, 5063));
    assert!(table.collides(&key("v"), params(1).ue, &ends, 5063));
}

#[test]
fn the_table_is_bounded() {
    let mut table = Table::new(Timers::default(), 1, 3, 2);
    add(&mut table, 1, None, 0);
    let other = SaSet::new(
        SetToken(9),
        SetParams {
            ue: [192, 0, 2, 9].into(),
            ..params(9)
        },
        1,
    );
    assert_eq!(
        table.add(&key("w"), &"p".into(), other),
        Err(TableError::Full)
    );
}

#[test]
fn client_ports_change_and_come_round() {
    let mut table = table();
    let first = add(&mut table, 1, None, 0);
    confirm(&mut table, first, 0, MIN);
    let ue = SocketAddr::new(params(1).ue, 32000);
    assert_eq!(
        table.free_client_port(&(5064..=5066), ue, Some(1), &[]),
        Some(5066)
    );
    assert_eq!(
        table.free_client_port(&(5064..=5065), ue, Some(1), &[]),
        Some(5064)
    );
    assert_eq!(
        table.free_client_port(&(5065..=5065), ue, Some(1), &[]),
        None
    );
}
