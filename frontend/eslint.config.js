import { defineConfigWithVueTs, vueTsConfigs } from '@vue/eslint-config-typescript'
import prettier from 'eslint-config-prettier'
import vue from 'eslint-plugin-vue'

export default defineConfigWithVueTs(
  { ignores: ['test-results', 'src/api/schema.d.ts', 'public'] },
  vue.configs['flat/recommended'],
  vueTsConfigs.strict,
  prettier,
  {
    rules: {
      'vue/multi-word-component-names': 'off', // the design system's Button is <Button>
      'vue/no-reserved-component-names': 'off',
      'vue/require-default-prop': 'off', // optional props are undefined, as in TypeScript
      'vue/no-static-inline-styles': 'error', // refused by the server's content security policy
    },
  },
  { files: ['src/**/*.test.ts'], rules: { '@typescript-eslint/no-non-null-assertion': 'off' } },
)
