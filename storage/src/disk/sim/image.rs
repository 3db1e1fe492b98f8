//! The bytes of a file as pages that images share until one of them writes.
//!
//! Invariants:
//! 1. A page that is absent is all zeros, and so is what a page holds behind the image's length.
//! 2. A clone shares all pages and costs no more than a counter: files of zeros and power cycles are cheap.

use std::sync::Arc;

use bytes::Bytes;

use super::rng::Rng;

/// The unit of sharing, in bytes.
pub(super) const PAGE: usize = 4096;

/// The unit that a device writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

/// A page; absent for zeros.
pub(super) type Page = Option<Arc<[u8; PAGE]>>;

static ZEROS: [u8; PAGE] = [0; PAGE];

/// The bytes of a write, which can be cut without a copy.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Bytes(Bytes),
    Zeros(usize),
}

impl Data {
    pub(super) fn copy(bytes: &[u8]) -> Self {
        // Most large writes that are not the embedder's own bytes are the zeros of a new segment.
        if bytes.chunks(PAGE).all(is_zero) {
            Data::Zeros(bytes.len())
        } else {
            Data::Bytes(Bytes::copy_from_slice(bytes))
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Data::Bytes(bytes) => bytes.len(),
            Data::Zeros(len) => *len,
        }
    }

    /// The part from `from` (inclusive) to `to`, both cut off at the end.
    pub(super) fn slice(&self, from: usize, to: usize) -> Self {
        let to = to.min(self.len());
        let from = from.min(to);
        match self {
            Data::Bytes(bytes) => Data::Bytes(bytes.slice(from..to)),
            Data::Zeros(_) => Data::Zeros(to - from),
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    ZEROS.get(..bytes.len()).is_some_and(|zeros| zeros == bytes)
}

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    len: usize,
    /// May be shorter than the length: what is missing is absent.
    pages: Arc<Vec<Page>>,
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing but zeros.
    pub(super) fn is_blank(&self) -> bool {
        self.pages.iter().all(Option::is_none)
    }

    pub(super) fn page(&self, index: usize) -> &Page {
        self.pages.get(index).unwrap_or(&None)
    }

    /// Puts a page in place of another; the length stays.
    pub(super) fn set_page(&mut self, index: usize, page: Page) {
        if page.is_none() && self.page(index).is_none() {
            return;
        }
        let pages = Arc::make_mut(&mut self.pages);
        if pages.len() <= index {
            pages.resize(index + 1, None);
        }
        if let Some(place) = pages.get_mut(index) {
            *place = page;
        }
    }

    /// Makes it at least this long.
    pub(super) fn grow(&mut self, len: usize) {
        self.len = self.len.max(len);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.len {
            let (last, used) = (len / PAGE, len % PAGE);
            if self.pages.len() > last {
                Arc::make_mut(&mut self.pages).truncate(last + 1);
                if self.page(last).is_some() {
                    self.put_zeros(len, PAGE - used);
                }
            }
        }
        self.len = len;
    }

    /// Writes as into a file: what lies between is zeros. Nothing for no bytes.
    pub(super) fn write(&mut self, at: usize, data: &Data) {
        match data {
            Data::Bytes(bytes) => self.put(at, bytes),
            Data::Zeros(len) => {
                self.put_zeros(at, *len);
                if *len > 0 {
                    self.grow(at + len);
                }
            }
        }
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let (index, start) = (at / PAGE, at % PAGE);
            let (piece, tail) = rest.split_at_checked(PAGE - start).unwrap_or((rest, &[]));
            match <&[u8; PAGE]>::try_from(piece) {
                Ok(whole) => self.set_page(index, (!is_zero(piece)).then(|| Arc::new(*whole))),
                Err(_) => self.change(index, |page| {
                    if let Some(to) = page.get_mut(start..start + piece.len()) {
                        to.copy_from_slice(piece);
                    }
                }),
            }
            at += piece.len();
            rest = tail;
        }
        if !bytes.is_empty() {
            self.grow(at);
        }
    }

    fn put_zeros(&mut self, at: usize, len: usize) {
        let (mut at, end) = (at, at + len);
        while at < end {
            let (index, start) = (at / PAGE, at % PAGE);
            let stop = PAGE.min(start + end - at);
            if stop - start == PAGE {
                self.set_page(index, None);
            } else if self.page(index).is_some() {
                self.change(index, |page| page.iter_mut().take(stop).skip(start).for_each(|byte| *byte = 0));
            }
            at += stop - start;
        }
    }

    /// Changes a page in place, which no other image sees.
    fn change(&mut self, index: usize, change: impl FnOnce(&mut [u8; PAGE])) {
        let pages = Arc::make_mut(&mut self.pages);
        if pages.len() <= index {
            pages.resize(index + 1, None);
        }
        if let Some(page) = pages.get_mut(index) {
            change(Arc::make_mut(page.get_or_insert_with(|| Arc::new(ZEROS))));
        }
    }

    /// Fills a sector, as far as it lies within the length, with random bytes.
    pub(super) fn garble(&mut self, sector: usize, rng: &mut Rng) {
        let at = sector * SECTOR;
        let len = self.len.saturating_sub(at).min(SECTOR);
        let mut noise = [0; SECTOR];
        for piece in noise.chunks_mut(8) {
            piece.copy_from_slice(rng.next().to_le_bytes().get(..piece.len()).unwrap_or_default());
        }
        self.put(at, noise.get(..len).unwrap_or_default());
    }

    /// Flips bits of one byte. False if there is no such byte.
    pub(super) fn flip(&mut self, at: usize, bits: u8) -> bool {
        if at >= self.len {
            return false;
        }
        self.change(at / PAGE, |page| {
            if let Some(byte) = page.get_mut(at % PAGE) {
                *byte ^= bits;
            }
        });
        true
    }

    /// Reads up to `buf.len()` bytes; fewer at the end.
    pub(super) fn read(&self, buf: &mut [u8], at: usize) -> usize {
        let n = self.len.saturating_sub(at).min(buf.len());
        let (mut at, mut rest) = (at, buf.get_mut(..n).unwrap_or_default());
        while !rest.is_empty() {
            let (index, start) = (at / PAGE, at % PAGE);
            let len = rest.len().min(PAGE - start);
            let (piece, tail) = rest.split_at_mut(len);
            let page: &[u8; PAGE] = self.page(index).as_deref().unwrap_or(&ZEROS);
            piece.copy_from_slice(page.get(start..start + len).unwrap_or_default());
            at += len;
            rest = tail;
        }
        n
    }

    /// Up to `len` bytes from `at`; fewer at the end.
    pub(super) fn bytes(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.len.saturating_sub(at).min(len)];
        self.read(&mut bytes, at);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_vector_of_bytes_whatever_is_done_to_it() {
        let mut rng = Rng::new(5);
        let (mut image, mut model) = (Image::default(), Vec::new());
        let mut copies = Vec::new();
        for i in 0..3000_u64 {
            let (at, len) = (rng.below(5 * PAGE), rng.below(3 * PAGE));
            let (at, len) = if rng.below(2) == 0 { (at / PAGE * PAGE, len / PAGE * PAGE) } else { (at, len) };
            match rng.below(8) {
                0 => {
                    image.set_len(at);
                    model.resize(at, 0);
                }
                1 => assert_eq!(image.flip(at, 4), model.get_mut(at).map(|b: &mut u8| *b ^= 4).is_some()),
                2 if copies.len() < 50 => copies.push((image.clone(), model.clone())),
                kind => {
                    let bytes = vec![if kind == 3 { 0 } else { i as u8 }; len];
                    image.write(at, &Data::copy(&bytes));
                    if len > 0 {
                        model.resize(model.len().max(at + len), 0);
                        model[at..at + len].copy_from_slice(&bytes);
                    }
                }
            }
            assert!(image.bytes(0, usize::MAX) == model, "step {i}");
        }
        assert!(copies.iter().all(|(image, model)| image.bytes(0, usize::MAX) == *model), "a copy was changed");
    }

    #[test]
    fn zeros_take_no_memory() {
        let mut image = Image::default();
        image.write(0, &Data::copy(&vec![0; 1 << 20]));
        assert_eq!((image.len(), image.pages.len()), (1 << 20, 0));
    }
}
