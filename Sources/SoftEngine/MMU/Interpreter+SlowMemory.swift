import CDavit
import X86

extension Interpreter {
    /// `size` is 1 to 8 bytes; the access may cross a page.
    func slowLoad(linear: UInt64, size: Int) throws(GuestFault) -> UInt64 {
        throw GuestFault(.PF, errorCode: 0)
    }

    func slowStore(_ value: UInt64, linear: UInt64, size: Int) throws(GuestFault) {
        throw GuestFault(.PF, errorCode: 0)
    }
}
