import MachineModel

/// Characters on their way in and out.
extension UART16550 {
    // MARK: In

    /// The channel's receiver: takes what the FIFO has room for.
    func receive(_ bytes: UnsafeRawBufferPointer) -> Int {
        chip.withLock { chip in
            let room = chip.mcr & MCR.loop != 0 ? 0 : max(0, chip.receiverDepth - chip.receiver.count)
            let count = min(room, bytes.count)
            for byte in bytes[..<count] { receive(&chip, character: UInt16(byte)) }
            chip.isInputHeld = count < bytes.count
            // Room may have come between the moment the channel looked and this one; it is told when the guest reads.
            chip.wantsInput = false
            update(&chip)
            return count
        }
    }

    /// A character with its error bits of LSR in the high byte reaches the receiver.
    func receive(_ chip: inout Chip, character: UInt16) {
        if chip.receiver.count >= chip.receiverDepth {
            chip.errors |= LSR.oe
            // The FIFO keeps its characters; without it the newer one takes the older one's place.
            if !chip.hasFIFOs { chip.receiver[0] = character }
        } else {
            chip.receiver.append(character)
        }
        if chip.receiver.count == 1 { chip.latchFirstError() }
        startTimeout(&chip)
    }

    /// Takes the oldest character.
    func readData(_ chip: inout Chip) -> UInt8 {
        guard let character = chip.receiver.first else { return 0 }
        chip.receiver.removeFirst()
        chip.latchFirstError()
        startTimeout(&chip)
        if chip.receiver.isEmpty, chip.isInputHeld { chip.wantsInput = true }
        return UInt8(truncatingIfNeeded: character)
    }

    /// Four character times from now, unless the FIFO is empty (data sheet 8.4.1).
    private func startTimeout(_ chip: inout Chip) {
        chip.timeoutPending = false
        guard chip.hasFIFOs else { return }
        if chip.receiver.isEmpty {
            chip.timeoutTimer?.cancel()
        } else {
            chip.timeoutTimer?.arm(at: clock.now &+ 4 &* chip.characterTime)
        }
    }

    func characterTimeout() {
        chip.withLock { chip in
            chip.timeoutPending = chip.hasFIFOs && !chip.receiver.isEmpty
            update(&chip)
        }
    }

    // MARK: Out

    /// The guest writes THR.
    func transmit(_ chip: inout Chip, _ byte: UInt8) {
        // The write takes the interrupt back; when the character is gone at once it comes anew, as another edge.
        chip.transmitterEmptyPending = false
        update(&chip)
        if chip.mcr & MCR.loop != 0 {
            receive(&chip, character: UInt16(byte))
            chip.transmitterEmptyPending = true
            return
        }
        guard let channel else {
            chip.transmitterEmptyPending = true
            return
        }
        if chip.backlog.count < Self.backlogLimit {
            chip.backlog.append(byte)
            chip.transmitterEmptyPending = true
        } else if chip.hasFIFOs {
            // A character too many is lost.
            if chip.transmitter.count < Self.fifoDepth { chip.transmitter.append(byte) }
        } else {
            chip.transmitter = [byte]
        }
        if chip.isChannelFull { return }
        if byte == 0x0A || chip.backlog.count >= Self.blockSize {
            send(&chip, to: channel)
        } else if !chip.isFlushArmed {
            chip.isFlushArmed = true
            chip.flushTimer?.arm(at: clock.now &+ Self.flushDelay)
        }
    }

    func flush(_ chip: inout Chip) {
        chip.isFlushArmed = false
        guard let channel, !chip.isChannelFull else { return }
        send(&chip, to: channel)
    }

    func channelIsWritable() {
        chip.withLock { chip in
            chip.isChannelFull = false
            flush(&chip)
            update(&chip)
        }
    }

    /// Hands the backlog to the channel, and refills it from the FIFO.
    private func send(_ chip: inout Chip, to channel: any ByteChannel) {
        while !chip.backlog.isEmpty {
            let taken = chip.backlog.withUnsafeBytes { channel.write($0) }
            if taken >= chip.backlog.count {
                chip.backlog.removeAll(keepingCapacity: true)
            } else {
                chip.isChannelFull = true
                chip.backlog.removeFirst(max(0, taken))
            }
            let moved = min(chip.transmitter.count, max(0, Self.backlogLimit - chip.backlog.count))
            if moved > 0 {
                chip.backlog += chip.transmitter[..<moved]
                chip.transmitter.removeFirst(moved)
                if chip.transmitter.isEmpty { chip.transmitterEmptyPending = true }
            }
            if chip.isChannelFull { return }
        }
    }
}
