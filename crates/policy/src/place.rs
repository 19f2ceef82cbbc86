//! Pointing into a text of a policy file.

use portcullis_core::{Place, Spanned};

/// The place of a part of a text, `from` and `length` in bytes. Exact where the text stands in the file as it
/// is, plain or in quotes; where line ends or escapes make that unknowable it is the whole text.
pub(crate) fn part_of(text: &Spanned<String>, from: usize, length: usize) -> Place {
    let Spanned { value, place } = text;
    let quotes = match (place.length as usize).checked_sub(value.len()) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return *place,
    };
    let Some(before) = value.get(..from) else { return *place };
    if value.contains('\n') || value.get(from..from + length).is_none() {
        return *place;
    }
    let part = place.part(from + quotes, length);
    // Offsets are bytes, columns are characters.
    let surplus = u32::try_from(before.len() - before.chars().count()).unwrap_or(0);
    Place { column: part.column.saturating_sub(surplus), ..part }
}

#[cfg(test)]
mod tests {
    use super::part_of;
    use portcullis_core::{Place, Spanned};

    fn at(value: &str, length: u32) -> Spanned<String> {
        let place = Place { line: 3, column: 11, offset: 40, length, ..Place::default() };
        Spanned::new(value.to_owned(), place)
    }

    #[test]
    fn a_part_is_found_behind_quotes_and_wide_characters() {
        let plain = part_of(&at("a == b", 6), 5, 1);
        assert_eq!((plain.column, plain.offset, plain.length), (16, 45, 1));
        let quoted = part_of(&at("a == b", 8), 5, 1);
        assert_eq!((quoted.column, quoted.offset), (17, 46));
        let wide = part_of(&at("'é' == b", 9), 8, 1);
        assert_eq!((wide.column, wide.offset), (18, 48));
    }

    #[test]
    fn a_part_of_a_folded_text_is_the_whole_text() {
        for text in [at("a == b", 0), at("a == b", 12), at("a\nb", 3)] {
            assert_eq!(part_of(&text, 1, 1), text.place);
        }
        assert_eq!(part_of(&at("ab", 2), 5, 1), at("ab", 2).place);
    }
}
