/// Register offsets and bits of the 16550A in the spelling of National Semiconductor's PC16550D data sheet (June 1995),
/// section 8.
extension UART16550 {
    /// Offsets from the base port. RBR, THR and IER give way to the divisor latch while LCR.DLAB is set.
    enum Register {
        /// RBR when read, THR when written, DLL with DLAB.
        static let data: UInt16 = 0
        /// IER, DLM with DLAB.
        static let interruptEnable: UInt16 = 1
        /// IIR when read, FCR when written.
        static let interruptIdentification: UInt16 = 2
        static let lineControl: UInt16 = 3
        static let modemControl: UInt16 = 4
        static let lineStatus: UInt16 = 5
        static let modemStatus: UInt16 = 6
        static let scratch: UInt16 = 7
    }

    enum IER {
        /// Received data available, and the character timeout.
        static let erbfi: UInt8 = 1 << 0
        /// Transmitter holding register empty.
        static let etbei: UInt8 = 1 << 1
        /// Receiver line status.
        static let elsi: UInt8 = 1 << 2
        /// Modem status.
        static let edssi: UInt8 = 1 << 3
        static let all: UInt8 = 0x0F
    }

    /// Values of IIR's low four bits, highest priority first.
    enum IIR {
        static let lineStatus: UInt8 = 0x06
        static let receivedData: UInt8 = 0x04
        static let characterTimeout: UInt8 = 0x0C
        static let transmitterEmpty: UInt8 = 0x02
        static let modemStatus: UInt8 = 0x00
        static let none: UInt8 = 0x01
        /// Both set while the FIFOs are enabled.
        static let fifosEnabled: UInt8 = 0xC0
    }

    enum FCR {
        static let fifoEnable: UInt8 = 1 << 0
        static let receiverReset: UInt8 = 1 << 1
        static let transmitterReset: UInt8 = 1 << 2
        /// What stays: enable, DMA mode and trigger level; the resets clear themselves.
        static let stored: UInt8 = 0xC9
        /// Characters in the receiver FIFO that raise the interrupt, by FCR's bits 7 and 6.
        static func trigger(_ fcr: UInt8) -> Int {
            switch fcr >> 6 {
            case 0: 1
            case 1: 4
            case 2: 8
            default: 14
            }
        }
    }

    enum LCR {
        static let wordLength: UInt8 = 0x03
        static let stopBits: UInt8 = 1 << 2
        static let parityEnable: UInt8 = 1 << 3
        static let setBreak: UInt8 = 1 << 6
        static let dlab: UInt8 = 1 << 7
    }

    enum MCR {
        static let dtr: UInt8 = 1 << 0
        static let rts: UInt8 = 1 << 1
        static let out1: UInt8 = 1 << 2
        static let out2: UInt8 = 1 << 3
        static let loop: UInt8 = 1 << 4
        static let all: UInt8 = 0x1F
    }

    enum LSR {
        static let dr: UInt8 = 1 << 0
        static let oe: UInt8 = 1 << 1
        static let pe: UInt8 = 1 << 2
        static let fe: UInt8 = 1 << 3
        static let bi: UInt8 = 1 << 4
        static let thre: UInt8 = 1 << 5
        static let temt: UInt8 = 1 << 6
        /// A character with an error or a break is in the FIFO.
        static let fifoError: UInt8 = 1 << 7
        /// What reading LSR clears, and what raises the line status interrupt.
        static let errors: UInt8 = oe | pe | fe | bi
    }

    enum MSR {
        static let dcts: UInt8 = 1 << 0
        static let ddsr: UInt8 = 1 << 1
        static let teri: UInt8 = 1 << 2
        static let ddcd: UInt8 = 1 << 3
        static let cts: UInt8 = 1 << 4
        static let dsr: UInt8 = 1 << 5
        static let ri: UInt8 = 1 << 6
        static let dcd: UInt8 = 1 << 7
        static let deltas: UInt8 = 0x0F
    }

    /// Characters that each FIFO holds.
    static let fifoDepth = 16
    /// Ticks per second of the crystal; a bit takes 16 times the divisor.
    static let crystal: UInt64 = 1_843_200
    /// What the latch is taken for after power-on, when the data sheet leaves it open: 9600 baud.
    static let initialDivisor: UInt16 = 12
}
