//! A core that only writes what a core would: SM4 and SM10 made of what comes.

use gm_sip::Message;

/// SM4 with keys that belong to nobody.
pub fn challenge(up: &Message, n: u32) -> Message {
    let mut rand = [0x51; 16];
    rand[..4].copy_from_slice(&n.to_be_bytes());
    let nonce = gm_sip::aka::nonce(&rand, &[0x17; 16]);
    let key = (u128::from(n) << 32) | 0x1234_5678;
    let realm = "ims.mnc001.mcc001.3gppnetwork.org";
    let value = format!(
        "Digest realm=\"{realm}\",nonce=\"{nonce}\",algorithm=AKAv1-MD5,qop=\"auth\",ck=\"{key:032x}\",ik=\"{:032x}\"",
        !key
    );
    Message::response(up, 401, "Unauthorized", "b1c2d3e4")
        .with("WWW-Authenticate", &value)
        .with("Server", "TelcoCore S-CSCF/9.1")
        .with("Content-Length", "0")
}

/// SM10, and the 200 to a de-REGISTER.
pub fn success(up: &Message, impu: &str, expires: u32) -> Message {
    let contact = up.value("Contact").expect("a Contact").into_owned();
    let uri = contact.split('>').next().unwrap_or_default();
    let mut out = Message::response(up, 200, "OK", "b1c2d3e4");
    for path in up.elements("Path") {
        out.push("Path", &path);
    }
    if expires > 0 {
        out.push("Contact", &format!("{uri}>;expires={expires}"));
        out.push("P-Associated-URI", &format!("<{impu}>, <tel:+15550100>"));
        let route = "<sip:orig@scscf1.ims.mnc001.mcc001.3gppnetwork.org:6060;lr>";
        out.push("Service-Route", route);
    }
    out.with("Server", "TelcoCore S-CSCF/9.1")
        .with(
            "P-Charging-Vector",
            "icid-value=P-CSCFabcd000000006500000000;orig-ioi=home",
        )
        .with("Content-Length", "0")
}
