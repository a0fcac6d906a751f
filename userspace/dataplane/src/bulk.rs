//! SA sets come and go: one or many, with one wait for the workers.
//!
//! Each set is whole or not there, whatever becomes of the others. What the
//! database has decided is carried out in rounds: the workers' steps of all
//! sets, then the maps' steps of all sets, and so on, so that of each set the
//! order is the database's.

use std::collections::HashSet;
use std::vec::IntoIter;

use gm_sadb::{Change, SadbError, SetId};

use crate::control::{Control, foreign_key};
use crate::crew::steps::Steps;
use crate::handoff::Step;
use crate::table::Entry;
use crate::{Error, SaStatus, SetSpec};

/// Sets that are worked on at a time; then others get their turn.
pub(crate) const SETS: usize = 256;

/// What is to be done about one set.
struct Todo {
    set: SetId,
    changes: std::iter::Peekable<IntoIter<Change>>,
    done: Result<(), Error>,
}

impl Todo {
    fn new((set, changes): (SetId, Vec<Change>)) -> Todo {
        Todo {
            set,
            changes: changes.into_iter().peekable(),
            done: Ok(()),
        }
    }
}

fn is_for_maps(change: &Change) -> bool {
    matches!(change, Change::Publish { .. } | Change::Unpublish { .. })
}

impl Control {
    /// Installs sets, each with all its SAs or none; an answer for each.
    pub(crate) fn install(&mut self, specs: Vec<SetSpec>) -> Vec<Result<SetId, Error>> {
        self.end_again();
        let mut answers = Vec::with_capacity(specs.len());
        let mut todo = Vec::with_capacity(specs.len());
        let mut seen = HashSet::new();
        for spec in specs {
            let set = spec.set.unwrap_or_else(|| self.sadb.new_set());
            // Of a set that is there twice the second has no fate of its own.
            if !seen.insert(set) {
                answers.push(Err(SadbError::SetExists(set).into()));
                continue;
            }
            let installed = self.sadb.install(set, &spec.sas).map_err(Error::from);
            answers.push(installed.map(|installed| {
                todo.push((set, installed.changes));
                set
            }));
        }
        let done = self.carry_out(todo);
        let failed: Vec<SetId> = failed(&done).collect();
        // All or none: what did get through is taken back.
        let undo = failed.iter().map(|set| (*set, self.sadb.remove(*set)));
        let undo = undo.collect();
        for undone in self.carry_out(undo) {
            match undone.done {
                Ok(()) => drop(self.sadb.release(undone.set)),
                Err(_) => self.unended.add(undone.set),
            }
        }
        let mut done = done.into_iter();
        answers
            .into_iter()
            .map(|answer| {
                let set = answer?;
                done.next().map_or(Ok(()), |todo| todo.done)?;
                self.past.installed(set);
                Ok(set)
            })
            .collect()
    }

    /// Lets the outbound SAs of sets take over; an answer for each.
    pub(crate) fn activate(&mut self, sets: &[SetId]) -> Vec<Result<(), Error>> {
        self.each(sets, |control, set| Ok(control.sadb.activate(set)?))
    }

    /// Stops sending with sets; an answer for each.
    pub(crate) fn retire(&mut self, sets: &[SetId]) -> Vec<Result<(), Error>> {
        self.each(sets, |control, set| Ok(control.sadb.retire(set)))
    }

    /// Ends sets and frees their slots; an answer for each.
    pub(crate) fn remove(&mut self, sets: &[SetId]) -> Vec<Result<(), Error>> {
        let ended = self.each(sets, |control, set| Ok(control.sadb.remove(set)));
        let release = |(set, ended): (&SetId, Result<(), Error>)| {
            if let Err(error) = ended {
                self.unended.add(*set);
                return Err(error);
            }
            let rows = self.sadb.list_set(*set);
            let sas: Vec<SaStatus> = rows.map(|row| self.status(row, 0)).collect();
            // A set that is gone already was noted then.
            if !sas.is_empty() {
                self.past.removed(*set, sas);
            }
            self.sadb.release(*set)?;
            self.unended.forget(*set);
            Ok(())
        };
        sets.iter().zip(ended).map(release).collect()
    }

    /// Has the database decide about each set, and carries that out.
    fn each(
        &mut self,
        sets: &[SetId],
        mut decide: impl FnMut(&mut Control, SetId) -> Result<Vec<Change>, Error>,
    ) -> Vec<Result<(), Error>> {
        let mut todo = Vec::with_capacity(sets.len());
        let mut answers = Vec::with_capacity(sets.len());
        for set in sets {
            let changes = decide(self, *set);
            answers.push(changes.map(|changes| todo.push((*set, changes))));
        }
        let mut done = self.carry_out(todo).into_iter();
        answers
            .into_iter()
            .map(|answer| answer.and_then(|()| done.next().map_or(Ok(()), |todo| todo.done)))
            .collect()
    }

    /// Carries out what the database has decided about a set.
    pub(crate) fn apply(&mut self, set: SetId, changes: Vec<Change>) -> Result<(), Error> {
        self.apply_all(vec![(set, changes)])
    }

    /// The same of several sets; the first error.
    pub(crate) fn apply_all(&mut self, todo: Vec<(SetId, Vec<Change>)>) -> Result<(), Error> {
        let done = self.carry_out(todo);
        done.into_iter().try_for_each(|todo| todo.done)
    }

    fn carry_out(&mut self, todo: Vec<(SetId, Vec<Change>)>) -> Vec<Todo> {
        let mut todo: Vec<Todo> = todo.into_iter().map(Todo::new).collect();
        loop {
            self.at_the_workers(&mut todo);
            if !self.at_the_maps(&mut todo) {
                return todo;
            }
        }
    }

    /// The workers' steps up to the next ones of the maps.
    fn at_the_workers(&mut self, todo: &mut [Todo]) {
        let mut steps = Steps::default();
        // Which workers each set's steps go to: as a rule one.
        let mut told: Vec<(usize, u8)> = Vec::new();
        for (at, todo) in todo.iter_mut().enumerate() {
            let partners = self.sadb.partners(todo.set);
            while let Some(change) = todo.changes.next_if(|c| !is_for_maps(c)) {
                let crew = &self.crew;
                let worker = match change {
                    Change::Add { slot, sa, dir } => {
                        let entry = Entry::new(slot, todo.set, dir, sa, partners.clone());
                        crew.load(entry, &mut steps)
                    }
                    Change::Select { slot, .. } => {
                        crew.tell(slot, Step::Activate(slot), &mut steps)
                    }
                    Change::Deselect { slot, .. } => {
                        crew.tell(slot, Step::Deactivate(slot), &mut steps)
                    }
                    Change::Forget { slot, .. } => crew.unload(slot, &mut steps),
                    Change::Publish { .. } | Change::Unpublish { .. } => continue,
                };
                if told.last() != Some(&(at, worker)) {
                    told.push((at, worker));
                }
            }
        }
        let gone = self.crew.carry_out(steps);
        for (at, _) in told.into_iter().filter(|(_, w)| gone.contains(w)) {
            todo[at].fails(Error::WorkerGone);
        }
    }

    /// The maps' steps up to the next ones of the workers; whether there were
    /// any.
    fn at_the_maps(&mut self, todo: &mut [Todo]) -> bool {
        let mut any = false;
        for todo in todo {
            while let Some(change) = todo.changes.next_if(is_for_maps) {
                any = true;
                let done = match change {
                    Change::Publish { slot, foreign, sa } => self.publish(slot, foreign, &sa),
                    Change::Unpublish { slot, foreign, sa } => {
                        self.published.withdraw(slot);
                        match foreign {
                            true => self.maps.remove_foreign(&foreign_key(&sa)),
                            false => Ok(()),
                        }
                    }
                    _ => Ok(()),
                };
                if let Err(error) = done {
                    todo.fails(error);
                    break;
                }
            }
        }
        any
    }
}

impl Todo {
    /// What is left is not done.
    fn fails(&mut self, error: Error) {
        self.done = Err(error);
        self.changes = Vec::new().into_iter().peekable();
    }
}

fn failed(done: &[Todo]) -> impl Iterator<Item = SetId> {
    done.iter().filter(|t| t.done.is_err()).map(|t| t.set)
}
