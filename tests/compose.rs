//! What `docker compose up` would serve, without an engine: the same script, the same policies, the same token.

use std::path::Path;
use std::process::Command;

use portcullis_core::Reason;

use crate::rig::client::Client;
use crate::rig::gateway::{Directory, Gateway};
use crate::rig::upstream::Upstream;
use crate::rig::world::HOST;

#[test]
fn the_deployed_policies_serve_a_bound_token() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = Directory::new();
    let made =
        Command::new("sh").arg(root.join("deploy/make-material.sh")).arg(directory.join("material")).output();
    let made = made.expect("the script runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for api in ["accounts.yaml", "status.yaml"] {
        let text = std::fs::read_to_string(root.join("deploy/policies/apis").join(api)).expect("an API");
        directory.write(&format!("apis/{api}"), text);
    }
    let upstream = Upstream::start();
    let settings = std::fs::read_to_string(root.join("deploy/policies/gateway.yaml")).expect("the settings");
    // Addresses and folders of the containers become those of this test; everything else is as it is deployed.
    let settings = settings
        .replace("http://echo:80", &upstream.url())
        .replace("0.0.0.0:8443", "127.0.0.1:0")
        .replace("127.0.0.1:9901", "127.0.0.1:0")
        .replace("/var/lib/portcullis/", "data/");
    directory.write("gateway.yaml", settings);
    let gateway = Gateway::start(directory.path());
    let port = gateway.address("public").port();
    let curl = |more: &[&str]| {
        let output = Command::new("curl")
            .current_dir(directory.path())
            .args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["--cacert", "material/servers-ca.pem", "--resolve", &format!("{HOST}:{port}:127.0.0.1")])
            .args(["-H", "@material/token.hdr"])
            .args(more)
            .arg(format!("https://{HOST}:{port}/accounts/42"))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(curl(&["--cert", "material/tpp-a.pem", "--key", "material/tpp-a.key"]), "200");
    assert_eq!(upstream.last().value("x-client-id"), "tpp-a");
    assert_eq!(curl(&[]), "401");
    let root_certificate = std::fs::read(directory.join("material/servers-ca.pem")).expect("the root");
    let client = Client::tls_with_root(gateway.address("public"), HOST, &root_certificate);
    client.get("/status/health").send().assert_passed();
    client.get("/accounts/42").send().assert_refused(Reason::CredentialsMissing);
}
