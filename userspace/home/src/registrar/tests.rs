use super::*;
use crate::vectors::Operator;
use gm_sip::aka::{Challenge as Read, Res, authorization};

const IMPI: &str = "u@home.example";

struct Count(u8);

impl Randomness for Count {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        out.fill(self.0);
    }
}

fn registrar() -> Registrar {
    let mut registrar = Registrar::new("home.example", 3600);
    let impus = ["sip:u@home.example", "sip:alias@home.example"];
    registrar.add(Subscriber::new(
        IMPI,
        &impus,
        [5; 16],
        Operator::Opc([6; 16]),
        0,
    ));
    registrar
}

fn request(impu: &str, authorization: &str) -> Message {
    Message::request("REGISTER", "sip:home.example")
        .with("Via", "SIP/2.0/UDP 203.0.113.1:5080;branch=z9hG4bK1")
        .with("Path", "<sip:t@203.0.113.1:5080;lr>")
        .with("From", &format!("<{impu}>;tag=1"))
        .with("To", &format!("<{impu}>"))
        .with("Call-ID", "1")
        .with("CSeq", "1 REGISTER")
        .with("Contact", "<sip:192.0.2.1:31800>;expires=9000")
        .with("Authorization", authorization)
}

fn first(registrar: &mut Registrar) -> Message {
    let empty = format!("Digest username=\"{IMPI}\",nonce=\"\",response=\"\"");
    let (response, outcome) =
        registrar.register(0, &request("sip:u@home.example", &empty), &mut Count(0));
    assert_eq!(outcome, Outcome::Challenged);
    response
}

/// What the subscriber's SIM says to a challenge.
fn answer(registrar: &Registrar, challenge: &Message) -> String {
    let read = Read::from_message(challenge).expect("a challenge");
    let xres = &registrar.subscribers[IMPI].vector_at(read.rand, 0).xres;
    authorization(&read, IMPI, "sip:home.example", "c", Ok(xres))
}

#[test]
fn an_answer_registers_all_identities_and_works_once() {
    let mut registrar = registrar();
    let challenge = first(&mut registrar);
    let value = answer(&registrar, &challenge);
    let sm9 = request("sip:u@home.example", &value);
    let (ok, outcome) = registrar.register(1_000, &sm9, &mut Count(9));
    assert_eq!(outcome, Outcome::Registered(3600));
    assert_eq!(
        ok.value("Contact").as_deref(),
        Some("<sip:192.0.2.1:31800>;expires=3600")
    );
    assert_eq!(ok.elements("P-Associated-URI").len(), 2);
    let bound = registrar.bindings("sip:alias@home.example", 2_000);
    assert_eq!(bound[0].path, ["<sip:t@203.0.113.1:5080;lr>"]);
    assert!(
        registrar
            .bindings("sip:u@home.example", 3_601_000)
            .is_empty()
    );
    assert_eq!(
        registrar.register(2_000, &sm9, &mut Count(20)).1,
        Outcome::Challenged
    );
}

#[test]
fn refused_ones() {
    let mut registrar = registrar();
    let challenge = first(&mut registrar);
    let read = Read::from_message(&challenge).expect("a challenge");
    let forged = authorization(&read, IMPI, "sip:home.example", "c", Err(&[1; 14]));
    let mut register = |impu: &str, value: &str| {
        registrar
            .register(0, &request(impu, value), &mut Count(5))
            .1
    };
    assert_eq!(
        register("sip:u@home.example", &forged),
        Outcome::Refused(403)
    );
    let wrong = authorization(
        &read,
        IMPI,
        "sip:home.example",
        "c",
        Ok(&Res::new(&[0; 8]).expect("RES")),
    );
    assert_eq!(
        register("sip:u@home.example", &wrong),
        Outcome::Refused(403)
    );
    assert_eq!(
        register("sip:else@home.example", &wrong),
        Outcome::Refused(403)
    );
    assert_eq!(
        register("sip:u@home.example", "Digest username=\"x\""),
        Outcome::Refused(403)
    );
}

#[test]
fn a_late_answer_is_challenged_again() {
    let mut registrar = registrar();
    let challenge = first(&mut registrar);
    let value = answer(&registrar, &challenge);
    let late = registrar.register(
        CHALLENGE_LIFE,
        &request("sip:u@home.example", &value),
        &mut Count(9),
    );
    assert_eq!(late.1, Outcome::Challenged);
}
