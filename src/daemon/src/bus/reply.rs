//! How refusals look on the bus.

use deputy_core::Denial;
use zbus::Message;
use zbus::message::Header;

use super::ERRORS;

/// The error message for a refusal: the code in the name, and message, rule and remedy in the body.
pub fn denied(call: &Header<'_>, denial: &Denial) -> zbus::Result<Message> {
    let name = format!("{ERRORS}{}", denial.code);
    // A NUL cannot be in a D-Bus string, and would turn the refusal into silence.
    let clean = |text: &str| text.replace('\0', "\u{fffd}");
    Message::error(call, name).build(&(clean(&denial.message), clean(&denial.rule), clean(&denial.remedy)))
}
