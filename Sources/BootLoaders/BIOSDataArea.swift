import GuestMemory
import MachineModel

/// The words that a PC's BIOS leaves in page zero, as far as kernels still look at them to find the end of conventional memory and the
/// serial port (IBM PS/2 and PC BIOS Interface Technical Reference, section 3).
enum BIOSDataArea {
    static func write(into memory: GuestMemory) throws(NotRAM) {
        var page = ByteImage(size: 0x1000)
        page.write(PlatformLayout.Port.com1.lowerBound, at: 0x400)
        page.write(UInt16(MemoryMap.extendedBIOSDataArea >> 4), at: 0x40E)
        page.write(UInt16(MemoryMap.extendedBIOSDataArea >> 10), at: 0x413)
        try BIOSServices.write(page: &page, into: memory)
        try memory.write(bytes: page.bytes, at: GuestPhysicalAddress(0))

        // The extended area's first byte is its size in KiB.
        var extended = ByteImage(size: Int(MemoryMap.videoMemory - MemoryMap.extendedBIOSDataArea))
        extended.write(UInt8(extended.bytes.count >> 10), at: 0)
        try memory.write(bytes: extended.bytes, at: GuestPhysicalAddress(MemoryMap.extendedBIOSDataArea))
    }
}
