//! What can be wrong with the framing of a request.

use portcullis_core::chunk::ChunkFault;
use portcullis_core::{Reason, Rejection};

/// What is wrong with the framing of a request. The text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingFault {
    /// RFC 9112 section 2.2 lets a server take it for a line end; a server that does not sees one line here.
    #[error("a line ends in a bare line feed")]
    BareLineFeed,
    /// RFC 9112 section 2.2.
    #[error("a carriage return stands inside a line")]
    BareCarriageReturn,
    /// More than one empty line before a request.
    #[error("empty lines stand before the request line")]
    EmptyLines,
    /// RFC 9112 section 3.
    #[error("the request line is malformed")]
    RequestLine,
    /// RFC 9112 section 3.2: another form than its method may have, a fragment, or a byte no target has.
    #[error("the request target is malformed")]
    Target,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the protocol version is not one of HTTP/1")]
    Version,
    /// RFC 9112 section 5.2.
    #[error("a field is folded over two lines")]
    FoldedField,
    /// RFC 9110 section 5.1: empty, without a colon, or with a byte that no name has, such as a space.
    #[error("a field name is malformed")]
    FieldName,
    /// A name that some servers read as one of the two that frame a message (`Transfer_Encoding`).
    #[error("a field name looks like Content-Length or Transfer-Encoding and is neither")]
    FieldNameDisguised,
    /// RFC 9110 section 5.5.
    #[error("a field value holds a control character")]
    FieldValue,
    /// RFC 9110 section 8.6 would let equal ones pass.
    #[error("Content-Length is repeated")]
    ContentLengthRepeated,
    /// RFC 9110 section 8.6.
    #[error("Content-Length is not a number")]
    ContentLengthInvalid,
    /// RFC 9112 section 7: anything but exactly one `chunked`.
    #[error("Transfer-Encoding is not `chunked`")]
    TransferCoding,
    /// RFC 9112 section 6.1.
    #[error("Transfer-Encoding stands in an HTTP/1.0 request")]
    TransferCodingInOldVersion,
    /// RFC 9112 section 6.3.
    #[error("Content-Length and Transfer-Encoding stand in one request")]
    TwoFramings,
    /// RFC 9110 section 9.3.1: it means nothing, and a server that does not look for it takes it for the next
    /// request.
    #[error("GET and HEAD have no body")]
    BodyWithoutMeaning,
    /// More bytes than the listener takes.
    #[error("the head is too large")]
    HeadTooLarge,
    /// More fields than the listener takes.
    #[error("the head has too many fields")]
    TooManyFields,
    /// RFC 9112 section 7.1.
    #[error("the size of a chunk is malformed")]
    ChunkSize,
    /// RFC 9112 section 7.1.1.
    #[error("the extension of a chunk is malformed")]
    ChunkExtension,
    /// The data of a chunk is not followed by a line end.
    #[error("a chunk is longer than its size")]
    ChunkEnd,
    /// RFC 9112 section 7.1.2.
    #[error("a trailer field is malformed or may not stand in a trailer")]
    Trailer,
}

impl From<ChunkFault> for FramingFault {
    fn from(fault: ChunkFault) -> Self {
        match fault {
            ChunkFault::Size => Self::ChunkSize,
            ChunkFault::Extension => Self::ChunkExtension,
        }
    }
}

impl From<FramingFault> for Rejection {
    fn from(fault: FramingFault) -> Self {
        let reason = match fault {
            FramingFault::HeadTooLarge | FramingFault::TooManyFields => Reason::HeadersTooLarge,
            FramingFault::BareLineFeed
            | FramingFault::BareCarriageReturn
            | FramingFault::EmptyLines
            | FramingFault::RequestLine
            | FramingFault::Target
            | FramingFault::Version
            | FramingFault::FoldedField
            | FramingFault::FieldName
            | FramingFault::FieldNameDisguised
            | FramingFault::FieldValue
            | FramingFault::BodyWithoutMeaning
            | FramingFault::ContentLengthRepeated
            | FramingFault::ContentLengthInvalid
            | FramingFault::TransferCoding
            | FramingFault::TransferCodingInOldVersion
            | FramingFault::TwoFramings
            | FramingFault::ChunkSize
            | FramingFault::ChunkExtension
            | FramingFault::ChunkEnd
            | FramingFault::Trailer => Reason::RequestMalformed,
        };
        Self::new(reason).because(fault.to_string())
    }
}
