//! The manual page `man/org.deputy.Deputy1.5`, made from the introspection data and checked in.
//!
//! `DEPUTY_WRITE_MANUAL=1 cargo test -p deputyd manual` writes it anew.

use std::fmt::Write as _;

use deputy_core::Code;

use super::introspection::reference;
use super::table::METHODS;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../man/org.deputy.Deputy1.5");

const HEAD: &str = "\
.TH ORG.DEPUTY.DEPUTY1 5 \"\" deputy Deputy
.SH NAME
org.deputy.Deputy1 \\- the D\\-Bus interface of Deputy
.SH DESCRIPTION
The name on the system bus is
.BR org.deputy.Deputy1 ,
the object
.IR /org/deputy/Deputy1 .
A job is an object
.IR /org/deputy/Deputy1/job/ID ,
a session
.IR /org/deputy/Deputy1/session/ID .
.PP
The caller is the uid of the connection, as the bus tells it; the uid of an application's service user speaks for the
application.
Nothing is broadcast: signals go to connections that asked for them.
The same answer is given for what is not there and what is another's.
.PP
Below, each method has its arguments, its results after the arrow, who may call it, and what it does.
What is optional goes into a dictionary; unknown options are refused.
.SH INTERFACES
";

/// One attribute of a line of the introspection data, with what XML escapes put back.
fn attribute(line: &str, name: &str) -> String {
    let start = line.find(&format!(" {name}=\"")).map(|at| at + name.len() + 3).expect("the attribute");
    let value = line[start..].split('"').next().expect("its end");
    value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// A text as roff takes it.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[derive(Default)]
struct Member {
    head: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    authority: String,
    words: String,
}

impl Member {
    fn write(self, page: &mut String) {
        let inputs = self.inputs.join(", ");
        let outputs = self.outputs.join(", ");
        let arrow = if outputs.is_empty() { String::new() } else { format!(" \\(-> {outputs}") };
        let _ = writeln!(page, ".TP\n\\fB{}\\fR({inputs}){arrow}", self.head);
        if !self.authority.is_empty() {
            let _ = writeln!(page, "\\fICaller:\\fR {}.", roff(&self.authority));
            page.push_str(".br\n");
        }
        let _ = writeln!(page, "{}", roff(&self.words));
    }
}

/// The whole page.
fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut member = Member::default();
    for line in reference().lines().map(str::trim_start) {
        if line.starts_with("<interface ") {
            let _ = writeln!(page, ".SS {}", roff(&attribute(line, "name")));
        } else if line.starts_with("<method ") {
            member = Member { head: attribute(line, "name"), ..Member::default() };
        } else if line.starts_with("<signal ") {
            let authority = "a signal, to connections that asked for it".into();
            member = Member { head: attribute(line, "name"), authority, ..Member::default() };
        } else if line.starts_with("<property ") {
            let head = format!("{} {}", attribute(line, "name"), attribute(line, "type"));
            member = Member { head, authority: "everybody, a property".into(), ..Member::default() };
        } else if line.contains("\"org.deputy.Authority\"") {
            member.authority = attribute(line, "value");
        } else if line.contains("DocString") {
            member.words = attribute(line, "value");
        } else if line.starts_with("<arg ") {
            let argument = format!("{} \\fI{}\\fR", attribute(line, "type"), attribute(line, "name"));
            let into = if line.contains("\"in\"") { &mut member.inputs } else { &mut member.outputs };
            into.push(argument);
        } else if ["</method>", "</property>", "</signal>"].iter().any(|end| line.starts_with(end)) {
            std::mem::take(&mut member).write(&mut page);
        }
    }
    page.push_str(
        ".SH ERRORS\nA refusal is an error \\fBorg.deputy.Deputy1.Error.\\fICODE\\fR with the arguments message, rule and \
         remedy.\nThe codes, which\n.I /usr/share/doc/deputy/errors.md\nexplains:\n.PP\n",
    );
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let _ = writeln!(page, "{}.", codes.join(",\n"));
    page.push_str(
        ".SH SEE ALSO\n.BR deputyctl (1),\n.BR deputy\\-application (5),\n.BR deputyd (8),\n.BR busctl (1)\n",
    );
    page
}

#[test]
fn the_manual_page_is_that_of_the_interface() {
    if std::env::var_os("DEPUTY_WRITE_MANUAL").is_some() {
        std::fs::write(FILE, page()).unwrap();
    }
    let checked_in = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        checked_in == page(),
        "man/org.deputy.Deputy1.5 is out of date: DEPUTY_WRITE_MANUAL=1 cargo test -p deputyd manual"
    );
}

#[test]
fn every_member_and_every_code_is_in_the_manual_page_and_documented() {
    let page = page();
    for method in METHODS {
        assert!(page.contains(&format!("\\fB{}\\fR(", method.member)), "{}", method.member);
        let first = method.documentation.split_whitespace().next().unwrap();
        assert!(method.documentation.len() > 10 && page.contains(&roff(first)), "{}", method.member);
    }
    for code in Code::ALL {
        assert!(page.contains(code.as_str()), "{code:?}");
    }
}
