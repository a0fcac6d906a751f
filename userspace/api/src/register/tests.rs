use super::*;

#[test]
fn the_debug_form_of_a_response_has_no_keys() {
    let mut response = ResponseRequest::default();
    response.status = 401;
    response.www_authenticate = Some("Digest ik=\"00ff\"".into());
    response.ik = Some("0123".into());
    response.ck = Some("4567".into());
    let shown = format!("{response:?}");
    assert!(shown.contains("401"), "{shown}");
    for secret in ["00ff", "0123", "4567"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_refusal_is_flat_and_absent_where_there_is_none() {
    let mut reply = RegisterReply {
        action: Action::Forward,
        id: Some(7),
        step: Some(Step::First),
        integrity_protected: Some("no".into()),
        remove: vec!["Security-Client".into()],
        remove_options: vec!["sec-agree".into()],
        impi: Some("a@b".into()),
        way: None,
        refusal: None,
    };
    let text = serde_json::to_string(&reply).unwrap();
    assert!(
        !text.contains("refusal") && !text.contains("reason"),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<RegisterReply>(&text).unwrap(), reply);
    reply.action = Action::Reply;
    reply.refusal = Some(RefusalBody {
        status: Some(494),
        phrase: Some("Security Agreement Required".into()),
        headers: vec!["Security-Server: ipsec-3gpp".into()],
        reason: "offer".into(),
        explain: "nothing to choose".into(),
    });
    let value = serde_json::to_value(&reply).unwrap();
    assert_eq!(value["status"], 494);
    assert_eq!(value["reason"], "offer");
    assert_eq!(
        serde_json::from_value::<RegisterReply>(value).unwrap(),
        reply
    );
}
