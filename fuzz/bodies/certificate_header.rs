//! What is done with the text of a header in which a proxy tells a certificate, and what must hold whatever it is.

use portcullis_gateway::listener::{CERTIFICATE_FORMATS, read_certificate_header};

/// Reads it in every format. The first byte chooses nothing: formats are few.
pub(crate) fn run(text: &[u8]) {
    for format in CERTIFICATE_FORMATS {
        let Some(certificates) = read_certificate_header(format, text) else { continue };
        assert!(certificates.len() <= 8, "{format}: a chain without end");
        assert!(
            certificates.iter().all(|der| !der.is_empty() && der.len() <= text.len()),
            "{format}: it grew"
        );
        // Whatever wraps the certificates, a blank at either end is none of them.
        let wrapped = [b" ", text, b" "].concat();
        let again = read_certificate_header(format, &wrapped);
        assert!(again.is_none() || again.as_ref() == Some(&certificates), "{format}: blanks change it");
    }
}
