//! Phones as a table: how each writes its offer, its header names, its echo and
//! its first Authorization.

use gm_esp::Suite;
use gm_sip::sec_agree::Ends;

/// One kind of phone.
#[derive(Clone, Copy)]
pub struct Model {
    pub name: &'static str,
    /// Security-Client's value.
    pub offer: fn(&Ends) -> String,
    /// Security-Verify's value out of Security-Server's.
    pub verify: fn(&str) -> String,
    /// Compact header names.
    pub compact: bool,
    /// What stands behind `username` and `uri` in the first Authorization.
    pub first: &'static str,
    /// Lines of its own.
    pub own: &'static str,
    /// Offers nothing but legacy suites.
    pub legacy: bool,
    /// What an edge with default preferences (and legacy, if it must) takes.
    pub suite: Suite,
}

pub const HUAWEI: Model = Model {
    name: "huawei",
    offer: |e| {
        let ealg = |ealg| {
            format!(
                "ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg={ealg};spi-c={};spi-s={};port-c={};port-s={}",
                e.spi_c, e.spi_s, e.port_c, e.port_s
            )
        };
        ["des-ede3-cbc", "aes-cbc", "null"].map(ealg).join(",")
    },
    verify: same_bytes,
    compact: false,
    first: "realm=\"home.example\",nonce=\"\",response=\"\"",
    own: "P-Early-Media: supported\r\n",
    legacy: false,
    suite: Suite::HmacSha1AesCbc,
};

pub const PIXEL: Model = Model {
    name: "pixel",
    offer: |e| {
        six(
            e,
            &["hmac-md5-96", "hmac-sha-1-96"],
            &AOSP,
            "prot=esp;mod=trans;",
        )
    },
    verify: other_order,
    compact: false,
    first: "realm=\"home.example\",nonce=\"\",qop=auth,\r\n response=\"\",algorithm=AKAv1-MD5",
    own: "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000100000001\r\n",
    legacy: false,
    suite: Suite::HmacSha1AesCbc,
};

pub const SAMSUNG: Model = Model {
    name: "samsung",
    offer: |e| {
        let one = |alg: &str, ealg: &str| {
            format!(
                "ipsec-3gpp;prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={};alg={alg};ealg={ealg}",
                e.spi_c, e.spi_s, e.port_c, e.port_s
            )
        };
        [
            one("hmac-md5-96", "null"),
            one("hmac-sha-1-96", "null"),
            one("hmac-sha-1-96", "aes-cbc"),
        ]
        .join(", ")
    },
    verify: same_bytes,
    compact: false,
    first: "nonce=\"\",uri=\"sip:home.example\",response=\"\",realm=\"home.example\"",
    own: "X-Vendor-Slot: 0\r\n",
    legacy: false,
    suite: Suite::HmacSha1AesCbc,
};

/// Some Samsung models: md5 with null and nothing else.
pub const SAMSUNG_MD5: Model = Model {
    name: "samsung that offers md5 only",
    offer: |e| {
        format!(
            "ipsec-3gpp;prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={};alg=hmac-md5-96;ealg=null",
            e.spi_c, e.spi_s, e.port_c, e.port_s
        )
    },
    legacy: true,
    suite: Suite::HmacMd5Null,
    ..SAMSUNG
};

pub const IPHONE: Model = Model {
    name: "iphone",
    offer: |e| {
        let mut entries = Vec::new();
        for alg in ["hmac-md5-96", "hmac-sha-1-96"] {
            for ealg in AOSP {
                entries.push(format!(
                    "ipsec-3gpp;alg={alg};ealg={ealg};mod=trans;port-c={};port-s={};prot=esp;spi-c={};spi-s={}",
                    e.port_c, e.port_s, e.spi_c, e.spi_s
                ));
            }
        }
        entries.join(",")
    },
    verify: without_q,
    compact: false,
    first: "uri=\"sip:home.example\",nonce=\"\",realm=\"home.example\",response=\"\"",
    own: "P-Preferred-Identity: <sip:iphone@home.example>\r\n",
    legacy: false,
    suite: Suite::HmacSha1AesCbc,
};

/// Qualcomm-type with China Mobile: blanks, no prot, no mod, compact names.
pub const QUALCOMM: Model = Model {
    name: "qualcomm",
    offer: |e| {
        let one = |alg: &str, ealg: &str| {
            format!(
                "ipsec-3gpp; alg={alg}; ealg={ealg}; spi-c={}; spi-s={}; port-c={}; port-s={}",
                e.spi_c, e.spi_s, e.port_c, e.port_s
            )
        };
        [
            one("hmac-md5-96", "des-ede3-cbc"),
            one("hmac-md5-96", "aes-cbc"),
            one("hmac-sha-1-96", "des-ede3-cbc"),
            one("hmac-sha-1-96", "aes-cbc"),
        ]
        .join(",")
    },
    verify: same_bytes,
    compact: true,
    first: "realm=\"home.example\",nonce=\"\",response=\"\",algorithm=AKAv1-MD5",
    own: "P-Com-Vendor: a,\r\n\t\"b;c\"  \r\n",
    legacy: false,
    suite: Suite::HmacSha1AesCbc,
};

/// ZTE, AT&T's profile: no prot, no mod, one mechanism with md5 only.
pub const ZTE: Model = Model {
    name: "zte",
    offer: |e| {
        format!(
            "ipsec-3gpp;alg=hmac-md5-96;spi-c={};spi-s={};port-c={};port-s={}",
            e.spi_c, e.spi_s, e.port_c, e.port_s
        )
    },
    verify: same_bytes,
    compact: false,
    first: "realm=\"home.example\",nonce=\"\",response=\"\"",
    own: "",
    legacy: true,
    suite: Suite::HmacMd5Null,
};

/// Xiaomi: six, null first, no prot and no mod.
pub const XIAOMI: Model = Model {
    name: "xiaomi",
    offer: |e| {
        six(
            e,
            &["hmac-md5-96", "hmac-sha-1-96"],
            &["null", "aes-cbc", "des-ede3-cbc"],
            "",
        )
    },
    legacy: false,
    suite: Suite::HmacSha1AesCbc,
    ..ZTE
};

/// Test clients: q=1.000, padded SPIs, other mechanisms, ah, a fold, what nobody knows.
pub const TEST_CLIENT: Model = Model {
    name: "test client",
    offer: |e| {
        format!(
            "tls;q=0.2, ipsec-ike;q=0.1,ipsec-3gpp;prot=ah;alg=hmac-sha-1-96;spi-c=1;spi-s=2;port-c=3;port-s=5060,\r\n \
             ipsec-3gpp;q=1.000;x-new=\"a,b\";alg=hmac-sha-1-96;spi-c={:010};spi-s={:010};port-c={};port-s={}",
            e.spi_c, e.spi_s, e.port_c, e.port_s
        )
    },
    verify: upper_case,
    compact: false,
    first: "nonce=\"\",response=\"\",integrity-protected=\"yes\"",
    own: "X-Test: yes\r\n",
    legacy: false,
    suite: Suite::HmacSha1Null,
};

/// One of each.
pub const ALL: [Model; 9] = [
    HUAWEI,
    PIXEL,
    SAMSUNG,
    SAMSUNG_MD5,
    IPHONE,
    QUALCOMM,
    ZTE,
    XIAOMI,
    TEST_CLIENT,
];

const AOSP: [&str; 3] = ["aes-cbc", "des-ede3-cbc", "null"];

fn six(e: &Ends, algs: &[&str], ealgs: &[&str], middle: &str) -> String {
    let mut entries = Vec::new();
    for alg in algs {
        for ealg in ealgs {
            entries.push(format!(
                "ipsec-3gpp;alg={alg};{middle}ealg={ealg};spi-c={};spi-s={};port-c={};port-s={}",
                e.spi_c, e.spi_s, e.port_c, e.port_s
            ));
        }
    }
    entries.join(",")
}

/// Huawei, Samsung: the bytes as they came.
pub fn same_bytes(server: &str) -> String {
    server.to_owned()
}

/// AOSP: parsed and written again, in another order.
pub fn other_order(server: &str) -> String {
    let entry = |entry: &str| {
        let mut parts: Vec<_> = entry.trim().split(';').map(str::trim).collect();
        parts[1..].reverse();
        parts.join(";")
    };
    server.split(',').map(entry).collect::<Vec<_>>().join(", ")
}

/// Some drop q.
pub fn without_q(server: &str) -> String {
    let entry = |entry: &str| {
        let parts = entry.trim().split(';').map(str::trim);
        let kept: Vec<_> = parts.filter(|p| !p.starts_with("q=")).collect();
        kept.join(";")
    };
    server.split(',').map(entry).collect::<Vec<_>>().join(",")
}

/// Case and blanks.
pub fn upper_case(server: &str) -> String {
    server
        .to_ascii_uppercase()
        .replace(';', " ; ")
        .replace('=', " = ")
}
