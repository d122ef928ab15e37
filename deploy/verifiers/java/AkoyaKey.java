import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Map;
import java.util.function.Supplier;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** A key and its algorithm, which a message cannot change. */
public final class AkoyaKey {
    @FunctionalInterface
    private interface Check {
        boolean verifies(byte[] message, byte[] signature) throws GeneralSecurityException;
    }

    /** The DER prefix of the 32 bytes of an Ed25519 public key (RFC 8410). */
    private static final byte[] ED25519_SPKI = HexFormat.of().parseHex("302a300506032b6570032100");

    final String algorithm;
    private final Check check;

    private AkoyaKey(String algorithm, Check check) {
        this.algorithm = algorithm;
        this.check = check;
    }

    boolean verifies(byte[] message, byte[] signature) {
        try {
            return check.verifies(message, signature);
        } catch (GeneralSecurityException malformed) {
            return false;
        }
    }

    /** Returns a key that tries {@code renewed}, the key that now has the same ID, if this one does not verify. */
    AkoyaKey orElse(Supplier<AkoyaKey> renewed) {
        return new AkoyaKey(algorithm, (message, signature) -> {
            if (verifies(message, signature)) return true;
            AkoyaKey other = renewed.get();
            return other != null && other != this && other.algorithm.equals(algorithm) && other.verifies(message, signature);
        });
    }

    /** Returns the key of a public JWK (RFC 7517): Ed25519 or P-256. */
    public static AkoyaKey ofJwk(Map<String, ?> jwk) throws GeneralSecurityException {
        String kind = jwk.get("kty") + " " + jwk.get("crv");
        byte[] x = Base64.getUrlDecoder().decode((String) jwk.get("x"));
        if (kind.equals("OKP Ed25519") && x.length == 32) {
            byte[] spki = new byte[ED25519_SPKI.length + 32];
            System.arraycopy(ED25519_SPKI, 0, spki, 0, ED25519_SPKI.length);
            System.arraycopy(x, 0, spki, ED25519_SPKI.length, 32);
            return signed("ed25519", "Ed25519", KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(spki)));
        }
        if (kind.equals("EC P-256")) {
            byte[] y = Base64.getUrlDecoder().decode((String) jwk.get("y"));
            AlgorithmParameters curve = AlgorithmParameters.getInstance("EC");
            curve.init(new ECGenParameterSpec("secp256r1"));
            ECPoint point = new ECPoint(new BigInteger(1, x), new BigInteger(1, y));
            ECPublicKeySpec key = new ECPublicKeySpec(point, curve.getParameterSpec(ECParameterSpec.class));
            PublicKey publicKey = KeyFactory.getInstance("EC").generatePublic(key);
            return signed("ecdsa-p256-sha256", "SHA256withECDSAinP1363Format", publicKey);
        }
        throw new GeneralSecurityException("neither Ed25519 nor P-256");
    }

    /** Returns the key of an hmac-sha256 secret, as configured in the gateway. Surrounding white space is ignored. */
    public static AkoyaKey ofSecret(String text) throws GeneralSecurityException {
        if (text.startsWith("\ufeff")) {
            throw new GeneralSecurityException("the shared secret begins with a byte order mark");
        }
        String secret = text.strip();
        byte[] octets = secret.getBytes(StandardCharsets.UTF_8);
        if (octets.length < 32 || secret.startsWith("-----BEGIN")) {
            throw new GeneralSecurityException("no shared secret of 32 bytes");
        }
        return new AkoyaKey("hmac-sha256", (message, signature) -> {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(octets, "HmacSHA256"));
            return MessageDigest.isEqual(mac.doFinal(message), signature);
        });
    }

    private static AkoyaKey signed(String algorithm, String jdkName, PublicKey key) {
        return new AkoyaKey(algorithm, (message, signature) -> {
            if (signature.length != 64) return false;
            Signature verifier = Signature.getInstance(jdkName);
            verifier.initVerify(key);
            verifier.update(message);
            return verifier.verify(signature);
        });
    }
}
