import GuestMemory
import MachineModel

/// An interrupt table for code that goes back to real mode and calls a BIOS, as Xen does. It finds one that knows the size of
/// conventional memory and answers everything else as a BIOS answers what it does not have (Ralf Brown's Interrupt List, INT 15h:
/// CF set, AH = 86h).
enum BIOSServices {
    private static let segment: UInt16 = 0xF000
    /// An IRET alone, where every PC has it: hardware interrupts and the like.
    private static let nothing: UInt16 = 0xFF53
    private static let unsupported: UInt16 = 0xFF54
    private static let conventionalMemory: UInt16 = 0xFF60

    private static let code: [(offset: UInt16, bytes: [UInt8])] = [
        (nothing, [0xCF]),
        // push bp; mov bp, sp; or byte [bp+6], 1 (CF in the caller's flags); pop bp; mov ah, 86h; iret
        (unsupported, [0x55, 0x89, 0xE5, 0x80, 0x4E, 0x06, 0x01, 0x5D, 0xB4, 0x86, 0xCF]),
        // push ds; push 40h; pop ds; mov ax, [13h]; pop ds; iret
        (conventionalMemory, [0x1E, 0x6A, 0x40, 0x1F, 0xA1, 0x13, 0x00, 0x1F, 0xCF]),
    ]

    /// Fills the interrupt table at address 0 in `page`, the first of memory, and writes the services' code.
    static func write(page: inout ByteImage, into memory: GuestMemory) throws(NotRAM) {
        for vector in 0..<256 {
            let offset =
                switch vector {
                case 0x12: conventionalMemory
                case 0x10, 0x13...0x1A: unsupported
                default: nothing
                }
            page.write(offset, at: vector * 4)
            page.write(segment, at: vector * 4 + 2)
        }
        for (offset, bytes) in code {
            try memory.write(bytes: bytes, at: GuestPhysicalAddress(UInt64(segment) << 4 + UInt64(offset)))
        }
    }
}
