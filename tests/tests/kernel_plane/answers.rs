//! What the kernel's data plane does not have is said, not left empty.

use gm_api::control::CaptureRequest;
use gm_tests::needs_esp;

use crate::four::Four;
use crate::lab::{Lab, UE};

#[test]
#[ignore = "needs a kernel with ESP"]
fn what_the_kernel_does_not_have_is_unsupported_with_a_sentence() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let capture = CaptureRequest {
        file: lab.dir.path().join("x.pcapng").display().to_string(),
        max_bytes: None,
    };
    let errors = [
        lab.refused(lab.ask(async |c| c.workers().await)),
        lab.refused(lab.ask(async |c| c.set_workers(2).await)),
        lab.refused(lab.ask(async |c| c.capture_start(&capture).await)),
        lab.refused(lab.ask(async |c| c.recent_drops(None, 5).await)),
        lab.refused(lab.ask(async |c| c.prefixes(None).await)),
        lab.refused(lab.ask(async |c| c.follow_drops().await)),
    ];
    for error in errors {
        assert_eq!(error.code, "unsupported", "{error}");
        assert!(error.message.contains("kernel's data plane"), "{error}");
        assert!(error.hint.is_some(), "{error}");
    }
    assert!(!std::path::Path::new(&capture.file).exists());
    let health = lab.ask(async |c| c.health().await).expect("gmespd answers");
    assert_eq!(health.data_plane, "kernel");
    assert!(health.lost.len() > 5);
    let shown = String::from_utf8(lab.ctl(&["health"]).stdout).expect("text");
    assert!(
        shown.contains("plane:     kernel\n") && shown.contains("\nlost:      "),
        "{shown}"
    );
    // What has no counter is absent, not 0.
    let stats = lab.ask(async |c| c.stats().await).expect("gmespd answers");
    assert_eq!(stats.reasons.get("cleartext-protected"), Some(&0));
    assert_eq!(stats.reasons.get("unknown-spi"), Some(&0));
    assert_eq!(stats.reasons.get("selector-mismatch"), None);
    assert!(stats.workers.is_empty());
    // An explanation says what it cannot see.
    lab.add(&Four::new(1, 90_000).pcscf());
    let phone = UE.parse().expect("an address");
    let said = lab
        .ask(async |c| c.explain(phone).await)
        .expect("an explanation");
    let blind = said
        .findings
        .iter()
        .find(|f| f.cause == "kernel-data-plane");
    assert!(blind.is_some(), "{said:?}");
    daemon.stop();
}
