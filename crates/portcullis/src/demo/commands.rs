//! What the demo invites the reader to paste.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::folder::{argument, quoted};

/// A complete command and the HTTP status it ends in.
pub(crate) struct Command {
    /// What it shows, in a sentence.
    pub(crate) shows: &'static str,
    /// The status of its last answer.
    pub(crate) status: u16,
    /// The command line.
    pub(crate) line: String,
}

/// The commands, in the order in which they tell the story. The one that uses up a limit is the last but one and
/// has a caller of its own, so that every line keeps its status in whatever order they are pasted.
pub(crate) fn commands(directory: &Path, gateway: SocketAddr, identity: SocketAddr) -> Vec<Command> {
    let ca = argument(directory, "ca.pem");
    let call = |options: &str, path: &str| {
        let url = quoted(&format!("https://{gateway}{path}"));
        format!("curl -i --cacert {ca} {options}{url}")
    };
    let certificate = |name: &str| format!("--cert {} ", argument(directory, name));
    let header = |name: &str| format!("-H {} ", quoted(&format!("@{}", directory.join(name).display())));
    let holder = certificate("tpp-a.pem") + &header("accounts.hdr");
    let accounts = "/open-banking/v3/accounts";
    let form = quoted(&format!("@{}", directory.join("token-request.form").display()));
    let many = quoted(&format!("https://{gateway}/partners/orders?n=[1-30]"));
    [
        ("the holder of a certificate-bound token reads accounts", 200, call(&holder, accounts)),
        ("the same token without the certificate", 401, call(&header("accounts.hdr"), accounts)),
        (
            "the same token with somebody else's certificate: stolen, and worthless",
            401,
            call(&(certificate("tpp-b.pem") + &header("accounts.hdr")), accounts),
        ),
        ("no credential at all", 401, call("", accounts)),
        (
            "the token's scope is `accounts`, and this starts a payment",
            403,
            call(&(holder.clone() + "-d amount=100 "), "/open-banking/v3/domestic-payments"),
        ),
        (
            "with the scope `payments` it goes through",
            200,
            call(
                &(certificate("tpp-a.pem") + &header("payments.hdr") + "-d amount=100 "),
                "/open-banking/v3/domestic-payments",
            ),
        ),
        (
            "a path with `..` in it is refused before anything else looks at it",
            400,
            call(&format!("--path-as-is {holder}"), "/open-banking/v3/accounts/../domestic-payments"),
        ),
        ("a partner with an API key", 200, call(&header("acme.hdr"), "/partners/orders")),
        (
            "another partner, 30 requests: 10 are allowed at once, 10 per minute",
            429,
            format!(
                "curl -s -o /dev/null -w '%{{http_code}}\\n' --cacert {ca} {}{many}",
                header("globex.hdr")
            ),
        ),
        ("a public page", 200, call("", "/public/status")),
        (
            "another token from the identity provider (client credentials)",
            200,
            format!("curl -i -d {form} {}", quoted(&format!("http://{identity}/token"))),
        ),
    ]
    .map(|(shows, status, line)| Command { shows, status, line })
    .into()
}

/// The commands as they are printed: each on a line of its own, `  STATUS  curl …`, under the sentence that says
/// what it shows. A comment behind the command would break the line in an interactive zsh.
pub(crate) fn table(commands: &[Command]) -> String {
    commands.iter().fold(String::new(), |mut text, Command { shows, status, line }| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n  {shows}\n  {status}  {line}\n");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{commands, table};
    use std::net::SocketAddr;
    use std::path::Path;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn each_command_is_one_line_behind_its_status() {
        let commands = commands(Path::new("demo"), address(8443), address(9902));
        let text = table(&commands);
        let lines: Vec<_> = text.lines().filter(|line| line.contains("curl ")).collect();
        assert_eq!(lines.len(), commands.len());
        for (line, command) in lines.iter().zip(&commands) {
            assert_eq!(*line, format!("  {}  {}", command.status, command.line));
        }
    }

    #[test]
    fn every_promised_status_is_there() {
        let commands = commands(Path::new("demo"), address(8443), address(9902));
        for status in [200, 400, 401, 403, 429] {
            assert!(commands.iter().any(|command| command.status == status), "{status}");
        }
    }

    #[test]
    fn a_directory_with_a_blank_is_quoted_everywhere() {
        for command in commands(Path::new("my demo"), address(1), address(2)) {
            let unquoted: String = command.line.split('\'').step_by(2).collect();
            assert!(!unquoted.contains("my"), "{}", command.line);
        }
    }

    #[test]
    fn the_readme_shows_the_first_commands_as_they_are() {
        let commands = commands(Path::new("demo"), address(8443), address(9902));
        let readme = include_str!("../../../../README.md");
        for command in commands.iter().take(3) {
            let lines = format!("  {}\n  {}  {}\n", command.shows, command.status, command.line);
            assert!(readme.contains(&lines), "README.md lacks\n{lines}");
        }
    }
}
