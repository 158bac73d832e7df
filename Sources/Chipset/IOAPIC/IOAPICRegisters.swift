// Registers of the I/O APIC: Intel 82093AA data sheet (May 1996), 3.0, and the EOI register of version 0x20 (Intel ICH9 data sheet, 13.5.7).

enum IOAPICRegister {
    // Memory-mapped, by offset.
    static let ioregsel: UInt64 = 0x00
    static let iowin: UInt64 = 0x10
    static let eoi: UInt64 = 0x40

    // Behind IOWIN, by index.
    static let id: UInt8 = 0x00
    static let version: UInt8 = 0x01
    static let arbitrationID: UInt8 = 0x02
    /// Two for each pin: low half, high half.
    static let redirection: UInt8 = 0x10
}

/// A redirection table entry.
enum IOAPICEntry {
    static let vector: UInt64 = 0xFF
    static let logical: UInt64 = 1 << 11
    static let deliveryStatus: UInt64 = 1 << 12
    static let activeLow: UInt64 = 1 << 13
    static let remoteIRR: UInt64 = 1 << 14
    static let level: UInt64 = 1 << 15
    static let masked: UInt64 = 1 << 16
    /// Bits 49-55 carry bits 8-14 of the destination where the guest knows that it may use them; 56-63 the first eight.
    static let destination: UInt64 = 0xFFFE << 48
    static let readOnly: UInt64 = deliveryStatus | remoteIRR
    static let writable: UInt64 = vector | 7 << 8 | logical | activeLow | level | masked | destination
}
