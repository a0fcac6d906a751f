//! A packet inside a larger buffer.

/// The buffer has not the room that a packet wants to grow by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffer has {has} bytes of room, {wants} are needed")]
pub struct NoRoom {
    /// Bytes that there are.
    pub has: usize,
    /// Bytes that the packet wants.
    pub wants: usize,
}

/// An IP packet inside a larger buffer, with room in front and behind.
///
/// ```text
/// buffer 0      start                end        len
///        | room | IP header, payload | room |
/// ```
///
/// No `Debug`: the bytes may be cleartext.
pub struct PacketBuf<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> PacketBuf<'a> {
    /// The packet at `start .. end` of a buffer; `start` is its IP header's.
    ///
    /// # Panics
    /// When the range is not inside the buffer: the caller's own mistake.
    pub fn new(buffer: &'a mut [u8], start: usize, end: usize) -> Self {
        assert!(
            start <= end && end <= buffer.len(),
            "packet outside its buffer"
        );
        PacketBuf { buffer, start, end }
    }

    /// The bytes from the IP header to the end.
    pub fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The same, to write to.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Where the packet begins in its buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Where the packet ends in its buffer.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Bytes of the packet.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of room in front.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes of room behind.
    pub fn tailroom(&self) -> usize {
        self.buffer.len() - self.end
    }

    /// Moves the start `n` bytes to the front; what is there is left over.
    ///
    /// # Errors
    /// [`NoRoom`]; the packet is unchanged.
    pub fn grow_front(&mut self, n: usize) -> Result<(), NoRoom> {
        self.start = enough(self.start, n)?;
        Ok(())
    }

    /// Takes `n` bytes off the front.
    ///
    /// # Errors
    /// [`NoRoom`] when the packet is shorter; it is unchanged.
    pub fn trim_front(&mut self, n: usize) -> Result<(), NoRoom> {
        enough(self.len(), n)?;
        self.start += n;
        Ok(())
    }

    /// Moves the end `n` bytes to the back; what is there is left over.
    ///
    /// # Errors
    /// [`NoRoom`]; the packet is unchanged.
    pub fn grow_back(&mut self, n: usize) -> Result<(), NoRoom> {
        enough(self.tailroom(), n)?;
        self.end += n;
        Ok(())
    }

    /// Takes `n` bytes off the end.
    ///
    /// # Errors
    /// [`NoRoom`] when the packet is shorter; it is unchanged.
    pub fn trim_back(&mut self, n: usize) -> Result<(), NoRoom> {
        enough(self.len(), n)?;
        self.end -= n;
        Ok(())
    }

    /// Cuts what is behind the first `len` bytes, if anything is.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
}

/// What is left of `has` without `wants`.
fn enough(has: usize, wants: usize) -> Result<usize, NoRoom> {
    has.checked_sub(wants).ok_or(NoRoom { has, wants })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_within_the_buffer_only() {
        let mut bytes = [0, 1, 2, 3, 4, 5];
        let mut packet = PacketBuf::new(&mut bytes, 2, 4);
        assert_eq!(packet.data(), [2, 3]);
        assert_eq!(packet.grow_front(3), Err(NoRoom { has: 2, wants: 3 }));
        assert_eq!(packet.grow_back(3), Err(NoRoom { has: 2, wants: 3 }));
        packet.grow_front(1).unwrap();
        packet.grow_back(2).unwrap();
        assert_eq!(packet.data(), [1, 2, 3, 4, 5]);
        assert_eq!((packet.headroom(), packet.tailroom()), (1, 0));
        assert_eq!(packet.trim_front(6), Err(NoRoom { has: 5, wants: 6 }));
        packet.trim_front(2).unwrap();
        packet.trim_back(1).unwrap();
        assert_eq!((packet.start(), packet.end(), packet.len()), (3, 5, 2));
        assert_eq!(packet.trim_back(3), Err(NoRoom { has: 2, wants: 3 }));
        packet.truncate(9);
        packet.truncate(1);
        assert_eq!(packet.data_mut(), [3]);
    }
}
