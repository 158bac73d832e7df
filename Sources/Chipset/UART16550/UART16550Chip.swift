import MachineModel

extension UART16550 {
    /// Registers, FIFOs and what is on its way, under the device's lock.
    struct Chip: Sendable {
        var ier: UInt8 = 0
        var fcr: UInt8 = 0
        var lcr: UInt8 = 0
        var mcr: UInt8 = 0
        /// Modem lines and their deltas.
        var msr: UInt8 = 0
        var scr: UInt8 = 0
        var divisor = UART16550.initialDivisor
        /// LSR's error bits until it is read.
        var errors: UInt8 = 0
        /// Characters received, oldest first; the high byte has their error bits of LSR until LSR is read. One without
        /// FIFOs.
        var receiver: [UInt16] = []
        /// Characters that wait because the channel takes none. One without FIFOs.
        var transmitter: [UInt8] = []
        var transmitterEmptyPending = false
        var timeoutPending = false

        /// Characters that have left the chip for the channel.
        var backlog: [UInt8] = []
        /// The channel has refused bytes and has not said that there is room again.
        var isChannelFull = false
        var isFlushArmed = false
        /// The channel has bytes that the receiver had no room for.
        var isInputHeld = false
        /// There is room for them: `resumeReading` is due once the lock is free.
        var wantsInput = false
        /// What the interrupt line was set to last.
        var irqLevel = false
        var timeoutTimer: (any VMTimer)?
        var flushTimer: (any VMTimer)?

        init() { powerOn() }

        mutating func powerOn() {
            (ier, fcr, lcr, mcr, scr, errors) = (0, 0, 0, 0, 0, 0)
            divisor = UART16550.initialDivisor
            msr = MSR.cts | MSR.dsr | MSR.dcd
            receiver.removeAll(keepingCapacity: true)
            transmitter.removeAll(keepingCapacity: true)
            transmitterEmptyPending = false
            timeoutPending = false
            timeoutTimer?.cancel()
            if isInputHeld { wantsInput = true }
        }

        var isDivisorLatchOpen: Bool { lcr & LCR.dlab != 0 }
        var hasFIFOs: Bool { fcr & FCR.fifoEnable != 0 }
        var receiverDepth: Int { hasFIFOs ? UART16550.fifoDepth : 1 }

        /// IIR's low four bits: the pending interrupt of highest priority.
        var interrupt: UInt8 {
            if ier & IER.elsi != 0, errors != 0 { return IIR.lineStatus }
            if ier & IER.erbfi != 0 {
                if receiver.count >= (hasFIFOs ? FCR.trigger(fcr) : 1) { return IIR.receivedData }
                if timeoutPending { return IIR.characterTimeout }
            }
            if ier & IER.etbei != 0, transmitterEmptyPending { return IIR.transmitterEmpty }
            if ier & IER.edssi != 0, msr & MSR.deltas != 0 { return IIR.modemStatus }
            return IIR.none
        }

        var lineStatus: UInt8 {
            var status = errors
            if !receiver.isEmpty { status |= LSR.dr }
            if transmitter.isEmpty { status |= LSR.thre | LSR.temt }
            if hasFIFOs, receiver.contains(where: { $0 > 0xFF }) { status |= LSR.fifoError }
            return status
        }

        /// Nanoseconds that a character takes at the programmed speed: start bit, data, parity, stop bits.
        var characterTime: UInt64 {
            let bits =
                1 + 5 + UInt64(lcr & LCR.wordLength) + (lcr & LCR.parityEnable != 0 ? 1 : 0)
                + (lcr & LCR.stopBits != 0 ? 2 : 1)
            return bits * 16 * UInt64(max(1, divisor)) * 1_000_000_000 / UART16550.crystal
        }

        /// LSR shows the errors of the character that is read next (data sheet 8.6.3, note).
        mutating func latchFirstError() {
            if let first = receiver.first { errors |= UInt8(truncatingIfNeeded: first >> 8) }
        }

        mutating func forgetFirstError() {
            if !receiver.isEmpty { receiver[0] &= 0xFF }
        }

        /// Sets MSR's lines from the plug, which has CTS, DSR and DCD on, or in loopback from MCR; changes become
        /// deltas.
        mutating func followModemLines() {
            var lines = MSR.cts | MSR.dsr | MSR.dcd
            if mcr & MCR.loop != 0 {
                lines = 0
                if mcr & MCR.rts != 0 { lines |= MSR.cts }
                if mcr & MCR.dtr != 0 { lines |= MSR.dsr }
                if mcr & MCR.out1 != 0 { lines |= MSR.ri }
                if mcr & MCR.out2 != 0 { lines |= MSR.dcd }
            }
            let changed = (lines ^ msr) & ~MSR.deltas
            var deltas = msr & MSR.deltas
            if changed & MSR.cts != 0 { deltas |= MSR.dcts }
            if changed & MSR.dsr != 0 { deltas |= MSR.ddsr }
            if changed & MSR.dcd != 0 { deltas |= MSR.ddcd }
            // RI counts only when it ends.
            if changed & MSR.ri != 0, lines & MSR.ri == 0 { deltas |= MSR.teri }
            msr = lines | deltas
        }

        /// Whether `resumeReading` is due; it is then taken as done.
        mutating func takeResume() -> Bool {
            defer { wantsInput = false }
            return wantsInput
        }
    }
}
