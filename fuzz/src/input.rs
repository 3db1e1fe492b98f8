//! Taking numbers and bytes off the front of a fuzz input.

/// What is left of an input. At its end every number is 0.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        let low = self.u8();
        u16::from_le_bytes([low, self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        let low = self.u16();
        u32::from(low) | u32::from(self.u16()) << 16
    }

    /// Up to `n` bytes.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// A 16-bit length, then as many bytes.
    pub fn counted(&mut self) -> &'a [u8] {
        let n = self.u16();
        self.take(n.into())
    }
}
