// Command words of the 8259A: Intel 8259A data sheet (December 1988), figures 7 and 8.

/// Initialization command word 1, and what tells it from OCW2 and OCW3 at the even port.
enum ICW1 {
    /// ICW4 will follow.
    static let ic4: UInt8 = 1 << 0
    /// No cascade: ICW3 will not follow.
    static let sngl: UInt8 = 1 << 1
    /// All inputs level-triggered.
    static let ltim: UInt8 = 1 << 3
    static let marker: UInt8 = 1 << 4
}

/// Initialization command word 4.
enum ICW4 {
    static let aeoi: UInt8 = 1 << 1
    /// Special fully nested mode.
    static let sfnm: UInt8 = 1 << 4
    static let stored: UInt8 = 0x1F
}

/// Operation command word 3, at the even port; OCW2 has bits 3 and 4 clear.
enum OCW3 {
    static let readRegister: UInt8 = 3
    static let readIRR: UInt8 = 2
    static let readISR: UInt8 = 3
    static let poll: UInt8 = 1 << 2
    static let marker: UInt8 = 1 << 3
    /// Special mask mode.
    static let smm: UInt8 = 1 << 5
    static let esmm: UInt8 = 1 << 6
}

/// ELCR1 and ELCR2 (Intel 82371SB, 2.5.5): inputs that can be level-triggered. IRQ 0, 1, 2, 8 and 13 cannot.
enum ELCR {
    static let writable1: UInt8 = 0xF8
    static let writable2: UInt8 = 0xDE
}
