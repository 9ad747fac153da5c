//! The introspection data, made from the table.
//!
//! `dbus/org.deputy.Deputy1.xml` is this module's output for all interfaces, and a test compares the two. To write it
//! anew after a change of the table: `DEPUTY_WRITE_XML=1 cargo test -p deputyd introspection`.
//!
//! A live object shows its own interfaces, and never jobs or sessions below it: which there are is nobody's to see.

use std::fmt::Write as _;

use deputy_core::{JobId, SessionId};
use zbus::Signature;

use super::table::{Authority, METHODS, Method, Needs, Object};
use super::{INTERFACES, ROOT};

/// The properties of the manager; all others have none.
pub const PROPERTIES: &[(&str, &str, &str)] = &[
    ("Version", "s", "The version of the program."),
    (
        "Features",
        "as",
        "What this version and machine can do beyond what version 1 of the interface requires.",
    ),
];

/// A signal, which goes to connections that asked for it alone.
pub struct Signal {
    /// The interface, without [`INTERFACES`].
    pub interface: &'static str,
    /// The signal.
    pub member: &'static str,
    /// Its arguments' names and types.
    pub arguments: &'static [(&'static str, &'static str)],
    /// What it says, in words.
    pub documentation: &'static str,
}

/// The signals.
pub const SIGNALS: &[Signal] = &[
    Signal {
        interface: "Jobs",
        member: "StateChanged",
        arguments: &[("job", "o"), ("state", "s"), ("details", "a{sv}")],
        documentation: "A job came into this state; details is what Job.Get says then, without argv and directory. Sent to \
                        connections that called Subscribe and to no others, from the root object. One that does not read \
                        loses signals: look at the job, or watch it by a descriptor, where none may be missed.",
    },
    Signal {
        interface: "Alerts",
        member: "Changed",
        arguments: &[("alert", "a{sv}")],
        documentation: "The use of a quota crossed a threshold, or has gone well below it; alert is as in Alerts.List, with \
                        the threshold 0 where the alert is over. Sent as Jobs.StateChanged is.",
    },
];

const HEAD: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
                    \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n";

const STANDARD: &str = r#"  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg name="xml" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface" type="s" direction="in"/>
      <arg name="property" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface" type="s" direction="in"/>
      <arg name="properties" type="a{sv}" direction="out"/>
    </method>
  </interface>
"#;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// An object; a job or session with its id, whether or not it is there.
    Object(Object, Option<String>),
    /// A step on the way to the root object, and the next step.
    Way(&'static str),
}

/// What a path leads to; `None` for what can never be an object.
pub fn path(text: &str) -> Option<Path> {
    match text {
        "/" => return Some(Path::Way("org")),
        "/org" => return Some(Path::Way("deputy")),
        "/org/deputy" => return Some(Path::Way("Deputy1")),
        _ => {}
    }
    let below = text.strip_prefix(ROOT)?;
    if below.is_empty() {
        return Some(Path::Object(Object::Root, None));
    }
    let (sort, id) = below.strip_prefix('/')?.split_once('/')?;
    match sort {
        "job" if id.parse::<JobId>().is_ok() => Some(Path::Object(Object::Job, Some(id.to_owned()))),
        "session" if id.parse::<SessionId>().is_ok() => {
            Some(Path::Object(Object::Session, Some(id.to_owned())))
        }
        _ => None,
    }
}

/// The path of a job.
pub fn job_path(id: &JobId) -> String {
    format!("{ROOT}/job/{id}")
}

/// The path of a session.
pub fn session_path(id: &SessionId) -> String {
    format!("{ROOT}/session/{}", id.as_str())
}

/// The introspection data of what a path leads to.
pub fn xml(path: &Path) -> String {
    match path {
        Path::Way(next) => format!("{HEAD}<node>\n  <node name=\"{next}\"/>\n</node>\n"),
        Path::Object(object, _) => format!("{HEAD}<node>\n{}{STANDARD}</node>\n", interfaces(Some(*object))),
    }
}

/// The checked-in file.
pub fn reference() -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{HEAD}<!-- Made from src/daemon/src/bus/table.rs; do not edit. To \
         write it anew:\n     DEPUTY_WRITE_XML=1 cargo test -p deputyd introspection\n\n     Interfaces of a job are at \
         {ROOT}/job/ID, those of a session at\n     {ROOT}/session/ID, all others at {ROOT}.\n     Errors are \
         org.deputy.Deputy1.Error.CODE, with a body of (s message, s rule, s remedy). -->\n<node>\n{}</node>\n",
        interfaces(None)
    )
}

fn interfaces(of: Option<Object>) -> String {
    let mut xml = String::new();
    let methods: Vec<_> =
        METHODS.iter().filter(|method| of.is_none_or(|object| method.object() == object)).collect();
    for group in methods.chunk_by(|a, b| a.interface == b.interface) {
        // Writing to a String cannot fail.
        let _ = writeln!(xml, "  <interface name=\"{INTERFACES}{}\">", group[0].interface);
        for method in group {
            write_method(&mut xml, method);
        }
        for signal in SIGNALS.iter().filter(|signal| signal.interface == group[0].interface) {
            write_signal(&mut xml, signal);
        }
        if group[0].interface == "Manager" {
            for (name, signature, words) in PROPERTIES {
                let _ = writeln!(
                    xml,
                    "    <property name=\"{name}\" type=\"{signature}\" access=\"read\">\n      <annotation \
                     name=\"org.freedesktop.DBus.Property.EmitsChangedSignal\" value=\"const\"/>\n      <annotation \
                     name=\"org.gtk.GDBus.DocString\" value=\"{}\"/>\n    </property>",
                    escape(words)
                );
            }
        }
        xml.push_str("  </interface>\n");
    }
    xml
}

fn write_method(xml: &mut String, method: &Method) {
    let words = method.documentation.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(
        xml,
        "    <method name=\"{}\">\n      <annotation name=\"org.deputy.Authority\" value=\"{}\"/>\n      <annotation \
         name=\"org.gtk.GDBus.DocString\" value=\"{}\"/>",
        method.member,
        escape(&authority(method)),
        escape(&words)
    );
    for (names, signature, direction) in
        [(method.inputs, method.signatures.input, "in"), (method.outputs, method.signatures.output, "out")]
    {
        for (name, signature) in names.iter().zip(fields(signature)) {
            let _ = writeln!(
                xml,
                "      <arg name=\"{name}\" type=\"{}\" direction=\"{direction}\"/>",
                escape(&signature)
            );
        }
    }
    xml.push_str("    </method>\n");
}

fn write_signal(xml: &mut String, signal: &Signal) {
    let _ = writeln!(
        xml,
        "    <signal name=\"{}\">\n      <annotation name=\"org.gtk.GDBus.DocString\" value=\"{}\"/>",
        signal.member,
        escape(signal.documentation)
    );
    for (name, signature) in signal.arguments {
        let _ = writeln!(xml, "      <arg name=\"{name}\" type=\"{signature}\"/>");
    }
    xml.push_str("    </signal>\n");
}

/// The row's authority in words.
pub fn authority(method: &Method) -> String {
    let mut words = match method.authority {
        Authority::Public => "everybody".to_owned(),
        Authority::Application => "application".to_owned(),
        Authority::ApplicationOrAdministrator(action) => format!("application, or {}", action.id()),
        Authority::Administrator(action) => action.id().to_owned(),
        Authority::OwnerOrApplicationOrAdministrator(action) => {
            format!("owner of the OS account, application, or {}", action.id())
        }
    };
    let permission = match method.needs {
        Needs::Nothing => None,
        Needs::Read(permission) | Needs::Change(permission) => Some((permission, "")),
        Needs::ChangeWhole(permission) => Some((permission, " in the whole application")),
        Needs::ReadOrOwn(permission) | Needs::ChangeOrOwn(permission) => {
            Some((permission, ", or what is its own"))
        }
    };
    if let Some((permission, how)) = permission {
        let _ = write!(words, "; acting account {permission}{how}");
    }
    if let Some((_, action)) = method.asks {
        let _ = write!(words, "; where ask_polkit says so also {}", action.id());
    }
    words
}

/// The parts of a message's signature.
fn fields(signature: &Signature) -> Vec<String> {
    match signature {
        Signature::Structure(fields) => fields.iter().map(ToString::to_string).collect(),
        Signature::Unit => Vec::new(),
        other => vec![other.to_string()],
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dbus/org.deputy.Deputy1.xml");

    #[test]
    fn the_introspection_file_is_what_the_table_says() {
        if std::env::var_os("DEPUTY_WRITE_XML").is_some() {
            std::fs::write(FILE, reference()).unwrap();
        }
        let file = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            file == reference(),
            "{FILE} differs from the table; see the head of introspection.rs for how to write it anew"
        );
    }

    /// Walks the text of the file, not the table: what is shown to the outside is what has to be decided.
    #[test]
    fn every_method_of_the_introspection_data_has_an_authority() {
        let file = reference();
        let (mut interface, mut members) = (String::new(), 0);
        let attribute = |line: &str| line.split('"').nth(1).unwrap().to_owned();
        let mut lines = file.lines().peekable();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if line.starts_with("<interface ") {
                interface = attribute(line).strip_prefix(INTERFACES).unwrap().to_owned();
            } else if line.starts_with("<method ") {
                let member = attribute(line);
                members += 1;
                let row = super::super::table::find(&interface, &member);
                assert!(row.is_some(), "{interface}.{member} has no row");
                let next = lines.peek().unwrap();
                assert!(next.contains("org.deputy.Authority"), "{interface}.{member} has no authority");
            }
        }
        assert_eq!(members, METHODS.len());
        for object in [Object::Root, Object::Job, Object::Session] {
            let live = xml(&Path::Object(object, None));
            assert!(!live.contains("<node name="), "{object:?} shows children");
        }
    }

    #[test]
    fn only_well_formed_paths_lead_anywhere() {
        let id = "a".repeat(16);
        assert_eq!(path(ROOT), Some(Path::Object(Object::Root, None)));
        assert_eq!(path(&format!("{ROOT}/job/{id}")), Some(Path::Object(Object::Job, Some(id.clone()))));
        for wrong in [
            format!("{ROOT}/job"),
            format!("{ROOT}/job/A"),
            format!("{ROOT}/session/{id}"),
            format!("{ROOT}x"),
            "/x".into(),
        ] {
            assert_eq!(path(&wrong), None, "{wrong}");
        }
        assert_eq!(path("/org"), Some(Path::Way("deputy")));
    }
}
