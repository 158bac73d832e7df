import MachineModel
import Synchronization

/// A 16550A UART as PCs have at COM1 to COM4, after National Semiconductor's PC16550D data sheet (June 1995).
///
/// Modelled: all registers, both FIFOs with trigger levels and character timeout, the five interrupt sources with their
/// priority, loopback, modem lines, break, and OUT2 as the gate between the chip and the interrupt line, as on a PC's
/// board. Left out: DMA signalling and the speed of the line. A character is on the line the moment it is written, and
/// arrives whole whatever LCR says of its length; only the character timeout follows the baud rate.
///
/// Output is gathered and handed to the channel at the end of a line, in blocks, or a millisecond after the first byte.
/// A channel that refuses bytes fills the transmitter FIFO in the end, and THRE holds the guest back, as a slow line
/// does. A vCPU waits only as long as the channel's `write` does.
public final class UART16550: BytePortDevice {
    /// A block of output that goes to the channel without waiting for the end of the line, in bytes.
    static let blockSize = 256
    /// Output kept for a channel that takes none, in bytes; then THRE goes.
    static let backlogLimit = 4096
    /// How long output waits for more, in nanoseconds.
    static let flushDelay: UInt64 = 1_000_000

    let irq: any IRQLine
    let channel: (any ByteChannel)?
    let clock: any VMClock
    /// Guards everything that changes. Held while the interrupt line is set, timers are armed and the channel is
    /// written to (none of which call back), and never while `resumeReading` is called.
    let chip = Mutex(Chip())

    /// With no channel the far end is an open plug: output is lost, nothing comes in.
    public init(irq: any IRQLine, channel: (any ByteChannel)?, clock: any VMClock) {
        self.irq = irq
        self.channel = channel
        self.clock = clock
        let timeout = clock.makeTimer { [weak self] in self?.characterTimeout() }
        let flush = clock.makeTimer { [weak self] in self?.flush() }
        chip.withLock { chip in
            chip.timeoutTimer = timeout
            chip.flushTimer = flush
        }
        channel?.onWritable { [weak self] in self?.channelIsWritable() }
        channel?.onReceive { [weak self] bytes in self?.receive(bytes) ?? bytes.count }
    }

    deinit {
        channel?.onReceive(nil)
        channel?.onWritable(nil)
    }

    /// Hands to the channel what is still waiting for more. To be called before the machine stops for good or for long.
    public func flush() {
        chip.withLock { chip in
            flush(&chip)
            update(&chip)
        }
    }

    /// A break condition arrives on the line, as from a terminal's Break key.
    public func receiveBreak() {
        chip.withLock { chip in
            guard chip.mcr & MCR.loop == 0 else { return }
            receive(&chip, character: UInt16(LSR.bi | LSR.fe) << 8)
            update(&chip)
        }
    }

    func readByte(offset: UInt16) -> UInt8 {
        let (value, resume) = chip.withLock { chip in
            let value = read(&chip, offset: offset)
            update(&chip)
            return (value, chip.takeResume())
        }
        if resume { channel?.resumeReading() }
        return value
    }

    func writeByte(offset: UInt16, value: UInt8) {
        let resume = chip.withLock { chip in
            write(&chip, offset: offset, value: value)
            update(&chip)
            return chip.takeResume()
        }
        if resume { channel?.resumeReading() }
    }

    // MARK: Registers

    private func read(_ chip: inout Chip, offset: UInt16) -> UInt8 {
        switch offset {
        case Register.data:
            return chip.isDivisorLatchOpen ? UInt8(truncatingIfNeeded: chip.divisor) : readData(&chip)
        case Register.interruptEnable:
            return chip.isDivisorLatchOpen ? UInt8(truncatingIfNeeded: chip.divisor >> 8) : chip.ier
        case Register.interruptIdentification:
            let source = chip.interrupt
            if source == IIR.transmitterEmpty { chip.transmitterEmptyPending = false }
            return source | (chip.hasFIFOs ? IIR.fifosEnabled : 0)
        case Register.lineControl: return chip.lcr
        case Register.modemControl: return chip.mcr
        case Register.lineStatus:
            let status = chip.lineStatus
            chip.errors = 0
            chip.forgetFirstError()
            return status
        case Register.modemStatus:
            let status = chip.msr
            chip.msr &= ~MSR.deltas
            return status
        case Register.scratch: return chip.scr
        default: return 0xFF
        }
    }

    private func write(_ chip: inout Chip, offset: UInt16, value: UInt8) {
        switch offset {
        case Register.data:
            if chip.isDivisorLatchOpen {
                chip.divisor = chip.divisor & 0xFF00 | UInt16(value)
            } else {
                transmit(&chip, value)
            }
        case Register.interruptEnable:
            if chip.isDivisorLatchOpen {
                chip.divisor = chip.divisor & 0x00FF | UInt16(value) << 8
                return
            }
            let enabled = value & ~chip.ier
            chip.ier = value & IER.all
            // Drivers rely on this: to enable the interrupt while the register is empty raises it.
            if enabled & IER.etbei != 0, chip.transmitter.isEmpty { chip.transmitterEmptyPending = true }
        case Register.interruptIdentification:
            writeFIFOControl(&chip, value)
        case Register.lineControl:
            let starting = value & ~chip.lcr
            chip.lcr = value
            if starting & LCR.setBreak != 0, chip.mcr & MCR.loop != 0 {
                receive(&chip, character: UInt16(LSR.bi | LSR.fe) << 8)
            }
        case Register.modemControl:
            chip.mcr = value & MCR.all
            chip.followModemLines()
            // Out of loopback the line is connected again: what waited may come in.
            if chip.mcr & MCR.loop == 0, chip.isInputHeld { chip.wantsInput = true }
        case Register.scratch:
            chip.scr = value
        default:
            // LSR is for factory test only and MSR is read-only.
            break
        }
    }

    private func writeFIFOControl(_ chip: inout Chip, _ value: UInt8) {
        let changesMode = (value ^ chip.fcr) & FCR.fifoEnable != 0
        if changesMode || value & (FCR.receiverReset | FCR.fifoEnable) == FCR.receiverReset | FCR.fifoEnable {
            chip.receiver.removeAll(keepingCapacity: true)
            chip.timeoutPending = false
            chip.timeoutTimer?.cancel()
            if chip.isInputHeld { chip.wantsInput = true }
        }
        if changesMode || value & (FCR.transmitterReset | FCR.fifoEnable) == FCR.transmitterReset | FCR.fifoEnable {
            if !chip.transmitter.isEmpty { chip.transmitterEmptyPending = true }
            chip.transmitter.removeAll(keepingCapacity: true)
        }
        // Trigger level and DMA mode are only taken along with the enable bit.
        chip.fcr = value & FCR.fifoEnable != 0 ? value & FCR.stored : 0
    }

    /// Brings the interrupt line to where the registers say.
    func update(_ chip: inout Chip) {
        let level = chip.interrupt != IIR.none && chip.mcr & MCR.out2 != 0
        guard level != chip.irqLevel else { return }
        chip.irqLevel = level
        irq.set(level)
    }
}
